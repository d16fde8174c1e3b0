"""The teacher's engine: offline vLLM, in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from labels.confidence import Piece
from labels.errors import EngineError
from labels.models import model_identity
from labels.prompt import Message
from labels.task import Task


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer: its text, its tokens with log-probabilities, whether it ended by itself, and token counts."""

    text: str
    pieces: tuple[Piece, ...]
    finished: bool
    tokens_in: int
    tokens_cached: int
    tokens_out: int


class Engine(Protocol):
    """Anything that answers chat prompts in a task's schema."""

    model: str

    def complete(self, task: type[Task], prompts: Sequence[list[Message]]) -> list[Completion]:
        """One completion a prompt, in order. Raises EngineError when the engine fails."""
        ...


class VllmEngine:
    """vLLM's `LLM` with structured outputs and prefix caching; greedy, so that the same input gives the same answer."""

    def __init__(self, model: str, revision: str | None, max_tokens: int, options: dict[str, Any]) -> None:
        """`options` are vLLM's own engine arguments (tensor_parallel_size, dtype, max_model_len, …)."""
        self.model = model_identity(model, revision)
        self.max_tokens = max_tokens
        from vllm import LLM

        try:
            self._llm: LLM | None = LLM(
                model=model,
                revision=revision,
                enable_prefix_caching=True,
                structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
                disable_log_stats=False,
                use_tqdm_on_load=False,
                **options,
            )
        except Exception as error:
            raise EngineError(f"vLLM could not load the teacher {model}: {error}") from error

    def complete(self, task: type[Task], prompts: Sequence[list[Message]]) -> list[Completion]:
        """One completion a prompt, in order."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        if self._llm is None:
            raise EngineError("the teacher's engine is closed")
        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=self.max_tokens,
            logprobs=0,
            structured_outputs=StructuredOutputsParams(json=task.json_schema()),
        )
        try:
            outputs = self._llm.chat(list(prompts), sampling, use_tqdm=False)  # type: ignore[arg-type]
        except Exception as error:
            raise EngineError(f"the teacher's engine failed on {len(prompts)} prompts: {error}") from error
        if len(outputs) != len(prompts):
            raise EngineError(f"the teacher was asked {len(prompts)} queries and gave {len(outputs)} answers")
        return [_completion(output) for output in outputs]

    def close(self) -> None:
        """Free the engine's memory."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def __enter__(self) -> Self:
        """The engine itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def _completion(output: Any) -> Completion:  # noqa: ANN401 - vLLM's RequestOutput, not imported at load time
    answer = output.outputs[0]
    pieces = tuple(
        (chosen[token].decoded_token or "", chosen[token].logprob)
        for token, chosen in zip(answer.token_ids, answer.logprobs, strict=True)
    )
    return Completion(
        text=answer.text,
        pieces=pieces,
        finished=answer.finish_reason == "stop",
        tokens_in=len(output.prompt_token_ids),
        tokens_cached=output.num_cached_tokens or 0,
        tokens_out=len(answer.token_ids),
    )
