"""The offline engine: vLLM in this process (or the processes it spawns), fed without a pause."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import islice
from typing import Any

from labels.errors import EngineError
from labels.models import model_identity
from labels.task import Task
from teacher.engine import IN_FLIGHT, Completion, Prompt, Sample, Sampling, identity_with, second_attempt

LLVMLITE = "llvmlite.binding.ffi"
BATCH = 64
"""Prompts rendered and tokenised at once."""


class VllmEngine:
    """vLLM's `LLM` with structured outputs and prefix caching.

    Requests are added while others finish, so the engine's batch stays full; `LLM.generate` on one chunk after another
    would run it empty at the end of each.
    """

    def __init__(self, model: str, revision: str | None, sampling: Sampling, options: dict[str, Any]) -> None:
        """`options` are vLLM's own engine arguments (tensor_parallel_size, dtype, quantization, max_model_len, …).

        Raises EngineError where vLLM can't load the model.
        """
        self.model = identity_with(model_identity(model, revision), sampling)
        self.sampling = sampling
        from vllm import LLM

        try:
            with _llvmlite_unseen():
                self._llm: LLM | None = LLM(
                    model=model,
                    revision=revision,
                    enable_prefix_caching=True,
                    structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
                    disable_log_stats=False,
                    use_tqdm_on_load=False,
                    seed=sampling.seed,  # the engine's, not each request's: those fail on vLLM's CPU build
                    **options,
                )
        except Exception as error:
            raise EngineError(f"vLLM could not load the teacher {model}: {error}") from error
        self._tokenizer = self._llm.get_tokenizer()
        self._longest: int = self._llm.llm_engine.model_config.max_model_len

    def complete(self, task: type[Task], prompts: Iterable[Prompt]) -> Iterator[Completion]:
        """One completion a prompt, in the order they finish (see `Engine`)."""
        waiting, asked, firsts = iter(prompts), dict[str, Prompt](), dict[str, Completion]()
        self._params = cache(partial(_sampling_params, task, self.sampling))
        try:
            while True:
                while len(asked) <= IN_FLIGHT - BATCH and (batch := list(islice(waiting, BATCH))):
                    yield from self._add(task, batch, asked)
                if not asked:
                    return
                for completion in self._step():
                    prompt = asked.pop(completion.key)
                    done = completion.after(firsts.pop(completion.key, None))
                    if again := second_attempt(task, prompt, completion):
                        firsts[done.key] = done
                        yield from self._add(task, [again], asked)
                    else:
                        yield done
        finally:
            if asked and self._llm:
                self._llm.llm_engine.abort_request(list(asked))

    def prefix_cache(self) -> tuple[int, int]:
        """Prompt tokens found in the prefix cache, and all those looked up, by vLLM's own counters."""
        if self._llm is None:
            raise EngineError("the teacher's engine is closed")
        counts = {metric.name: getattr(metric, "value", 0) for metric in self._llm.get_metrics()}
        return int(counts["vllm:prefix_cache_hits"]), int(counts["vllm:prefix_cache_queries"])

    def close(self) -> None:
        """Free the engine's memory."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def _add(self, task: type[Task], prompts: list[Prompt], asked: dict[str, Prompt]) -> Iterator[Completion]:
        """Hand prompts to vLLM; those too long for the model come back at once."""
        from vllm import TokensPrompt

        if self._llm is None:
            raise EngineError("the teacher's engine is closed")
        for prompt, ids in zip(prompts, self._encode(prompts), strict=True):
            if len(ids) >= self._longest:
                error = f"the prompt has {len(ids)} tokens, the model takes {self._longest - 1} (max_model_len)"
                yield Completion(prompt.key, (), error=error)
                continue
            try:
                params = self._params(prompt.max_tokens)
                # vLLM makes a request's own name unique by itself, and gives ours back.
                self._llm.llm_engine.add_request(prompt.key, TokensPrompt(prompt_token_ids=ids), params)
            except Exception as error:  # lengths are checked, so it is the schema or the sampling: wrong for all
                raise EngineError(
                    f"vLLM does not take requests of the task {task.name}: {error}. Look at its JSON schema "
                    "(its fields' types and constraints) and at the profile's [teacher] section"
                ) from error
            asked[prompt.key] = prompt

    def _step(self) -> list[Completion]:
        if self._llm is None:
            raise EngineError("the teacher's engine is closed")
        try:
            outputs = self._llm.llm_engine.step()
        except Exception as error:
            raise EngineError(f"the teacher's engine failed: {error or type(error).__name__}") from error
        return [_completion(output) for output in outputs if output.finished]

    def _encode(self, prompts: list[Prompt]) -> list[list[int]]:
        texts: Any = self._tokenizer.apply_chat_template(
            [prompt.messages for prompt in prompts], tokenize=False, add_generation_prompt=True
        )
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids


@contextmanager
def _llvmlite_unseen() -> Iterator[None]:
    """Hide one module from vLLM 0.32, which looks through all that are loaded and stumbles over this one's attributes
    ("'_lib_fn_wrapper' object has no attribute 'get'"). Numba loads it, as prediction-powered inference does.
    """
    module = sys.modules.pop(LLVMLITE, None)
    try:
        yield
    finally:
        if module is not None:
            sys.modules[LLVMLITE] = module


def _sampling_params(task: type[Task], sampling: Sampling, max_tokens: int) -> Any:  # noqa: ANN401 - vLLM's SamplingParams
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return SamplingParams(
        n=sampling.samples,
        temperature=sampling.temperature if sampling.samples > 1 else 0.0,
        max_tokens=max_tokens,
        logprobs=0,
        structured_outputs=StructuredOutputsParams(json=task.json_schema()),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _completion(output: Any) -> Completion:  # noqa: ANN401 - vLLM's RequestOutput, not imported at load time
    return Completion(
        key=output.request_id,
        samples=tuple(_sample(answer) for answer in output.outputs),
        tokens_in=len(output.prompt_token_ids),
        tokens_cached=output.num_cached_tokens or 0,
        tokens_out=sum(len(answer.token_ids) for answer in output.outputs),
    )


def _sample(answer: Any) -> Sample:  # noqa: ANN401 - vLLM's CompletionOutput
    pieces = tuple(
        (chosen[token].decoded_token or "", chosen[token].logprob)
        for token, chosen in zip(answer.token_ids, answer.logprobs, strict=True)
    )
    return Sample(answer.text, pieces, answer.finish_reason == "stop")
