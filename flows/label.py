"""Stage: the teacher labels what is new or invalidated."""

from collections import Counter
from dataclasses import asdict, dataclass

import pyarrow.parquet as pq

from flows.night import Night
from labels.errors import StillhouseError
from teacher.engine import Engine, VllmEngine
from teacher.label import Request, label


@dataclass(frozen=True)
class Counts:
    """What became of the queries (invariant 1), and what the teacher was asked this night."""

    queries: int
    labelled: int
    rejected: int
    failed: int
    asked: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    seconds: float


def label_queries(night: Night) -> Counts:
    """Label the night's requests; only what no label is held for is asked. Raises where rows are lost."""
    teacher = night.settings.teacher
    requests = [
        Request(row["identity"], row["query"], tuple(row["facts"]), row["prompt"])
        for row in pq.read_table(night.folder / "requests.parquet").to_pylist()
    ]
    engines: list[VllmEngine] = []

    def open_engine() -> Engine:
        with night.screen.waiting(f"starting vLLM with {teacher.model}"):
            engines.append(VllmEngine(teacher.model, teacher.revision, teacher.max_tokens, teacher.engine))
        return engines[0]

    try:
        with night.screen.bar("the teacher labels", len(requests)) as advance:
            done = label(night.task, requests, open_engine, night.warehouse, night.id, advance)
    finally:
        for engine in engines:
            engine.close()
    status = Counter(one.status for one in night.labels)
    counts = Counts(
        queries=len(requests),
        labelled=status["accepted"],
        rejected=status["rejected"],
        failed=status["failed"],
        asked=done.asked,
        tokens_in=done.tokens_in,
        tokens_cached=done.tokens_cached,
        tokens_out=done.tokens_out,
        seconds=round(done.seconds, 2),
    )
    if counts.queries != counts.labelled + counts.rejected + counts.failed:
        raise StillhouseError(f"rows in and rows out differ, which must never be: {asdict(counts)}")
    asked = f"asked the teacher {counts.asked:,}" if counts.asked else "asked the teacher nothing: every label was held"
    night.screen.say(f"  {counts.labelled:,} accepted, {counts.rejected:,} rejected, {counts.failed:,} failed; {asked}")
    return counts
