"""Stage: the teacher labels what is new or invalidated, and a few labels again to see whether it says the same."""

import time
from dataclasses import asdict, dataclass
from typing import Any

from evals.intervals import wilson
from flows.night import Night
from flows.teacher import LazyEngine, price_of, teacher_identity
from labels.errors import StillhouseError
from labels.files import write_json
from teacher.cost import Cost, cost
from teacher.engine import Engine
from teacher.flips import Flips, flips
from teacher.label import Labelled, label
from teacher.requests import count_pending, pending, sample, statuses

LABELLING = "labelling.json"
"""Beside a night's summary: what its labelling did and cost."""


@dataclass(frozen=True)
class Counts:
    """What became of the queries (invariant 1), and what the teacher was asked this night, at what cost.

    `asked`, tokens, seconds and cost leave out the sample asked again (`flips`). `seconds` has the engine's start in it,
    `label_seconds` has not. `accepted_now` are those accepted among the asked.
    """

    queries: int
    labelled: int
    rejected: int
    failed: int
    abstained: int
    asked: int
    accepted_now: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    label_seconds: float
    seconds: float
    prefix_cache_hit_rate: float | None
    cost: Cost | None
    flips: Flips | None


def label_queries(night: Night) -> Counts:
    """Label the night's requests; only what no label is held for is asked. Raises where rows are lost."""
    file, teacher = night.folder / "requests.parquet", night.settings.teacher
    total, left = count_pending(file, night.warehouse)
    start, again, hit_rate = time.perf_counter(), None, None
    with LazyEngine(night.settings) as engine:
        with night.screen.bar("the teacher labels", total) as advance:
            advance(total - left)
            done = label(
                night.task,
                pending(file, night.warehouse),
                lambda: _start(night, engine),
                teacher.max_tokens,
                night.warehouse,
                night.id,
                advance,
            )
        seconds = time.perf_counter() - start if done.asked else 0.0
        if engine.engine:  # a night that has nothing to ask does not start the teacher for this either
            hit_rate = _hit_rate(engine.engine, done)
            again = _flips(night, engine.engine)
    counts = _count(night, total, done, seconds, hit_rate, again)
    _say(night, counts)
    kept = night.folder / LABELLING
    if counts.asked or not kept.exists():  # a night that goes on after it waited asks nothing more
        write_json(kept, {"model": teacher_identity(night.settings)} | labelling_summary(counts))
    return counts


def _start(night: Night, engine: LazyEngine) -> Engine:
    with night.screen.waiting(f"starting the teacher, {night.settings.teacher.model}"):
        return engine.open()


def _flips(night: Night, engine: Engine) -> Flips | None:
    teacher = night.settings.teacher
    drawn = sample(night.folder / "requests.parquet", night.warehouse, teacher.flip_sample, night.id, held=True)
    if not drawn:
        return None
    with night.screen.waiting(f"asking {len(drawn)} again"):
        return flips(night.task, drawn, engine, teacher.max_tokens, night.warehouse)


def _hit_rate(engine: Engine, done: Labelled) -> float | None:
    """By the engine's own metrics, else by what it said of each request; None where it said nothing."""
    found, looked_up = engine.prefix_cache() or (done.tokens_cached, done.tokens_in)
    return found / looked_up if found else None


def _count(
    night: Night, total: int, done: Labelled, seconds: float, hit_rate: float | None, again: Flips | None
) -> Counts:
    became = statuses(night.folder / "requests.parquet", night.warehouse, night.task, night.id)
    counts = Counts(
        queries=total,
        labelled=became["accepted"],
        rejected=became["rejected"],
        failed=became["failed"],
        abstained=became["abstained"],
        asked=done.asked,
        accepted_now=became["accepted_now"],
        tokens_in=done.tokens_in,
        tokens_cached=done.tokens_cached,
        tokens_out=done.tokens_out,
        label_seconds=round(done.seconds, 2),
        seconds=round(seconds, 2),
        prefix_cache_hit_rate=hit_rate,
        cost=cost(price_of(night.settings), seconds, done.tokens_in, done.tokens_cached, done.tokens_out),
        flips=again,
    )
    if counts.queries != counts.labelled + counts.rejected + counts.failed:
        raise StillhouseError(f"rows in and rows out differ, which must never be: {asdict(counts)}")
    return counts


def _say(night: Night, counts: Counts) -> None:
    asked = f"asked the teacher {counts.asked:,}" if counts.asked else "asked the teacher nothing: every label was held"
    night.screen.say(f"  {counts.labelled:,} accepted, {counts.rejected:,} rejected, {counts.failed:,} failed; {asked}")
    if counts.asked:
        rate = counts.asked / counts.label_seconds if counts.label_seconds else 0.0
        cached = (
            "" if counts.prefix_cache_hit_rate is None else f", prefix cache hits {counts.prefix_cache_hit_rate:.0%}"
        )
        tokens = f"{counts.tokens_in:,} tokens in ({counts.tokens_cached:,} cached), {counts.tokens_out:,} out"
        night.screen.say(f"  {rate:,.0f} queries/s, {tokens}{cached}")
    if counts.cost and (each := counts.cost.per(counts.accepted_now)):
        night.screen.say(f"  cost {counts.cost.total:,.2f} {counts.cost.currency}, {each:.6f} an accepted label")
    if counts.flips:
        flipped = counts.flips
        low, high = wilson(flipped.flipped, flipped.asked)
        night.screen.say(
            f"  flip rate {flipped.flipped / flipped.asked:.1%} [{low:.1%}, {high:.1%}]: of {flipped.asked} labels asked "
            f"again {flipped.flipped} came out otherwise"
        )


def labelling_summary(counts: Counts) -> dict[str, Any]:
    """The labelling's part of the night's summary."""
    price, again = counts.cost, counts.flips
    per_label = price.per(counts.accepted_now) if price else None
    return {
        "queries": counts.queries,
        "labelled": counts.labelled,
        "rejected": counts.rejected,
        "failed": counts.failed,
        "abstained": counts.abstained,
        "asked_teacher": counts.asked,
        "tokens": {"in": counts.tokens_in, "cached": counts.tokens_cached, "out": counts.tokens_out},
        "label_seconds": counts.label_seconds,
        "teacher_seconds": counts.seconds,
        "prefix_cache_hit_rate": counts.prefix_cache_hit_rate,
        "cost": asdict(price) | {"per_accepted_label": per_label} if price else None,
        "flips": again.to_json() | {"interval": wilson(again.flipped, again.asked)} if again else None,
    }
