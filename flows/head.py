"""Stage: which queries the cache is to hold, and what it is forecast to cover and take."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from cache.canonical import FalseHits, measure
from cache.head import Head, Limits, choose_head, with_aliases
from cache.layout import entry, parse_entry
from cache.memory import MIB
from evals.intervals import wilson
from flows.ingest import INGESTED
from flows.night import Night
from flows.people import answers_of
from labels.files import read_json

ENDED = {
    "share": "cut at cache.head_share",
    "entries": "cut at cache.head_entries",
    "memory": "cut at cache.head_mib",
    "labels": "all that has a label",
}


def head_of(night: Night) -> Head:
    """The head: people's answers first, then the teacher's accepted labels by traffic.

    With a budget of false hits (`cache.canonical_budget`) it has aliases, where these keep to it.
    """
    queries, cache = traffic_of(night), night.settings.cache
    labels, people = teacher_entries(night), people_entries(night)
    limits = Limits(cache.head_share, cache.head_entries, cache.head_mib)
    head = replace(choose_head(queries, labels, people, limits), labelled=labelled_share(night))
    return _with_aliases(night, head, queries, {**labels, **people}) if cache.canonical_budget else head


def say_forecast(night: Night, head: Head) -> None:
    """What the head is to cover and to take, on the screen."""
    people = f" ({head.people:,} of them people's answers)" if head.people else ""
    night.screen.say(
        f"  head: {len(head.entries):,} queries{people}, {ENDED[head.ended]}; forecast: {head.hit_rate:.1%} of the traffic,"
        f" {head.bytes / MIB:,.1f} MiB of Redis"
    )
    if head.labelled < 1:
        night.screen.say(
            f"  {1 - head.labelled:.1%} of the traffic is queries too rare or too personal to be labelled: no head answers them"
        )
    if head.false_hits:
        night.screen.say(f"  {alias_words(head, head.false_hits, night.settings.cache.canonical_budget)}")


def alias_words(head: Head, found: FalseHits, budget: float) -> str:
    """What was measured of the aliases, and what came of it."""
    low, high = bounds(found)
    figures = (
        f"aliases: {found.share:.1%} of what they answer is wrong (95%: {low:.1%} to {high:.1%}, by {found.hits:,} queries with a"
        f" label of their own, weighed by traffic), {budget:.1%} is allowed: "
    )
    if head.aliases:
        return f"{figures}they answer {found.extra:.2%} of the traffic more"
    return figures + ("none are published" if high > budget else "cache.head_mib has no room for them")


def traffic_of(night: Night) -> list[tuple[str, float]]:
    """The night's queries and their traffic."""
    table = night.queries()
    return list(zip(table["query"].to_pylist(), table["traffic"].to_pylist(), strict=True))


def labelled_share(night: Night) -> float:
    """The share (0 to 1) of what people ask that the night's queries are."""
    return float((read_json(night.folder / INGESTED) or {}).get("labelled", 1.0))


def teacher_entries(night: Night) -> dict[str, str]:
    """By query the cache's entry of every accepted label. Raises InputError where one does not fit the task."""
    return {
        one.query: entry(night.task.parse(one.value).model_dump(), min(one.confidence.values(), default=0.0), "teacher")
        for one in night.labels
        if one.status == "accepted" and one.value
    }


def people_entries(night: Night) -> dict[str, str]:
    """By query the cache's entry of what people answered. Raises as `teacher_entries` does."""
    return {
        said.query: entry(
            night.task.parse(str(said.value)).model_dump(), 1.0, "simulated reviewer" if said.simulated else "person"
        )
        for said in answers_of(night)
    }


def head_json(head: Head, published: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the summary says of a head: the forecast, and what of it was found there once it was published."""
    found = head.false_hits
    return {
        "entries": len(head.entries),
        "people": head.people,
        "ended": head.ended,
        "traffic_share": round(head.hit_rate, 4),
        "bytes": head.bytes,
        "aliases": len(head.aliases),
        "false_hits": asdict(found) | {"interval": list(bounds(found))} if found else None,
        "published": published,
    }


def _with_aliases(night: Night, head: Head, queries: Sequence[tuple[str, float]], entries: Mapping[str, str]) -> Head:
    """The head with its canonical forms' lines where these are surely wrong no more often than the budget, and fit."""
    task, cache = night.task, night.settings.cache
    fields = tuple(task.model_fields)
    answers = {query: task(**parse_entry(raw, fields).value).items() for query, raw in entries.items()}
    found = measure(queries, answers, [query for query, _ in head.entries])
    full = with_aliases(head)
    fits = cache.head_mib is None or full.bytes <= cache.head_mib * MIB
    return replace(full if bounds(found)[1] <= cache.canonical_budget and fits else head, false_hits=found)


def bounds(found: FalseHits) -> tuple[float, float]:
    """The 95% interval of the share of false hits, which weighs by traffic: Wilson's on the effective sample size."""
    return wilson(found.share * found.effective, found.effective)
