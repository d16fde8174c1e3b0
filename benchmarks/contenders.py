"""The contenders of the labelling benchmark: each labels the same queries once and says what came of it."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.teacher import fresh_night
from flows.settings import Settings

if TYPE_CHECKING:
    from teacher.engine import Engine


@dataclass(frozen=True)
class Run:
    """What one contender did: wall seconds and this process's CPU seconds, tokens, its answer to each query.

    `again` counts the prompts asked a second time because the first answer was of no use; their tokens are in the sums.
    """

    seconds: float
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    answers: Mapping[str, str | None]
    cpu: float = 0.0
    again: int = 0

    @property
    def rate(self) -> float:
        """Queries a second."""
        return len(self.answers) / self.seconds

    @property
    def nulls(self) -> int:
        """Queries without an answer."""
        return sum(not answer for answer in self.answers.values())


def ours(settings: Settings, engine: "Engine", queries: Sequence[str]) -> Run:
    """All that a night does from its queries to their labels on disk, with an engine that runs already."""
    from flows.retrieve import retrieve_facts
    from teacher.label import label
    from teacher.requests import count_pending, pending, statuses

    night = fresh_night(settings, queries)
    start, cpu = time.perf_counter(), time.process_time()
    retrieve_facts(night)
    file = night.folder / "requests.parquet"
    count_pending(file, night.warehouse)
    waiting = pending(file, night.warehouse)
    done = label(night.task, waiting, lambda: engine, settings.teacher.max_tokens, night.warehouse, night.id)
    statuses(file, night.warehouse, night.task, night.id)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    labels = night.labels
    return Run(
        seconds,
        done.tokens_in,
        done.tokens_cached,
        done.tokens_out,
        {one.query: one.raw for one in labels},
        cpu,
        sum(one.attempts > 1 for one in labels),
    )


def bare(settings: Settings, llm: Any, queries: Sequence[str], ids: Sequence[Sequence[int]]) -> Run:  # noqa: ANN401 - vLLM's LLM
    """`LLM.generate` alone, on prompts that are tokens already; log-probabilities as ours asks for them."""
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import StructuredOutputsParams

    schema = StructuredOutputsParams(json=settings.task_class().json_schema())
    sampling = SamplingParams(
        temperature=0.0, max_tokens=settings.teacher.max_tokens, logprobs=0, structured_outputs=schema
    )
    prompts = [TokensPrompt(prompt_token_ids=list(one)) for one in ids]
    start, cpu = time.perf_counter(), time.process_time()
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Run(
        seconds,
        sum(len(one.prompt_token_ids) for one in outputs),
        sum(one.num_cached_tokens or 0 for one in outputs),
        sum(len(one.outputs[0].token_ids) for one in outputs),
        {query: one.outputs[0].text for query, one in zip(queries, outputs, strict=True)},
        cpu,
    )


def peer(name: str, folder: Path, settings: Settings, url: str, asked: Mapping[str, list[dict[str, str]]]) -> Run:
    """Another tool on the same server: the ready messages of each query in, its answers on disk out."""
    with tempfile.TemporaryDirectory() as kept:
        teacher, schema = settings.teacher, settings.task_class().json_schema()
        messages = list(asked.values())
        job = peers.Job(url, teacher.model, messages, schema, teacher.max_tokens, teacher.concurrency, kept)
        told = peers.ask(name, folder, job)
    return Run(told.seconds, told.tokens_in, 0, told.tokens_out, dict(zip(asked, told.answers, strict=True)))


def ready_prompts(settings: Settings, queries: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """The chat messages for each query, in the order we ask them."""
    from flows.retrieve import retrieve_facts
    from teacher.requests import pending

    night = fresh_night(settings, queries)
    retrieve_facts(night)
    waiting = pending(night.folder / "requests.parquet", night.warehouse)
    return {request.query: request.messages(night.task) for request in waiting}


def in_words(name: str, run: Run) -> str:
    """One line on what a contender did."""
    figures = asdict(run)
    tokens = f"{figures['tokens_in']:,} + {figures['tokens_out']:,} tokens"
    return f"{name:<12} {run.rate:8.1f}/s {run.seconds:7.2f} s (CPU {run.cpu:6.2f}), {tokens}, {run.nulls} nulls\n"
