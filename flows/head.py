"""Stage: which queries the cache is to hold, and what it is forecast to cover and take."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from cache.canonical import measure
from cache.head import Head, Limits, alias_lines, choose_head
from cache.layout import entry, parse_entry
from cache.memory import MIB, forecast_bytes
from evals.intervals import wilson
from flows.night import Night
from flows.people import answers_of
from labels.files import write_json

HEAD = "head.json"
ENDED = {
    "share": "cut at cache.head_share",
    "entries": "cut at cache.head_entries",
    "memory": "cut at cache.head_mib",
    "labels": "all that has a label",
}


def head_of(night: Night) -> Head:
    """The head: people's answers first, then the teacher's accepted labels by traffic. Says what it will cover and take.

    With a budget of false hits (`cache.canonical_budget`) it has aliases, where they keep to it.
    """
    queries, cache = traffic_of(night), night.settings.cache
    labels, people = teacher_entries(night), people_entries(night)
    head = choose_head(queries, labels, people, Limits(cache.head_share, cache.head_entries, cache.head_mib))
    if cache.canonical_budget:
        head = _with_aliases(night, head, queries, {**labels, **people})
    said = f" ({head.people:,} of them people's answers)" if head.people else ""
    night.screen.say(
        f"  head: {len(head.entries):,} queries{said}, {ENDED[head.ended]}; it is to answer {head.hit_rate:.1%} of the"
        f" traffic in {head.bytes / MIB:,.1f} MiB of Redis"
    )
    write_json(night.folder / HEAD, head_json(head))
    return head


def traffic_of(night: Night) -> list[tuple[str, float]]:
    """The night's queries and their traffic."""
    table = night.queries()
    return list(zip(table["query"].to_pylist(), table["traffic"].to_pylist(), strict=True))


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
    """What the summary says of a head: the forecast, and once it is published what was found there."""
    return {
        "entries": len(head.entries),
        "people": head.people,
        "ended": head.ended,
        "traffic_share": round(head.hit_rate, 4),
        "bytes": head.bytes,
        "aliases": len(head.aliases),
        "false_hits": asdict(head.false_hits) if head.false_hits else None,
        "published": published,
    }


def _with_aliases(night: Night, head: Head, queries: Sequence[tuple[str, float]], entries: Mapping[str, str]) -> Head:
    """The head with its canonical forms' lines where these are surely wrong no more often than the budget, and fit."""
    task, cache = night.task, night.settings.cache
    fields = tuple(task.model_fields)
    answers = {query: task(**parse_entry(raw, fields).value).items() for query, raw in entries.items()}
    found = measure(queries, answers, [query for query, _ in head.entries])
    low, high = wilson(found.share * found.effective, found.effective)
    lines = alias_lines(head)
    size = forecast_bytes([*head.entries, *lines])
    fits = cache.head_mib is None or size <= cache.head_mib * MIB
    publish = high <= cache.canonical_budget and fits
    figures = (
        f"  aliases: {found.share:.1%} of what they answer is wrong (95%: {low:.1%} to {high:.1%}; by {found.hits:,} queries with"
        f" a label of their own, weighed by traffic) where {cache.canonical_budget:.1%} is allowed: "
    )
    if publish:
        night.screen.say(f"{figures}they answer {found.extra:.2%} of the traffic more")
        return replace(head, aliases=lines, bytes=size, false_hits=found)
    night.screen.say(figures + ("none are published" if fits else "and cache.head_mib has no room for them"))
    return replace(head, false_hits=found)
