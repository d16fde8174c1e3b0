"""Choosing the head: which queries the cache holds, and what they will cover and take."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import starmap
from typing import Literal

from cache.canonical import FalseHits, alias, aliases
from cache.layout import bucket_count
from cache.memory import MIB, forecast_bytes, generation_bytes, line_bytes
from labels.errors import SettingsError

Ended = Literal["share", "entries", "memory", "labels"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a head ends: at this share of the traffic, so many queries, so much of Redis's memory; None for no such limit."""

    share: float
    entries: int | None = None
    mib: float | None = None


@dataclass(frozen=True)
class Head:
    """A head, and what it is forecast to be.

    `entries` are its queries, most frequent first, with the cache's entries (`layout.entry`); `people` of them are people's
    answers. They cover `traffic_share` (0 to 1) of all traffic; with `aliases`, the lines of canonical forms, that and
    `false_hits.extra`. All of it takes `bytes` of Redis's memory. `ended` names the limit that was met first, or says
    that there were no more labels; `cut` is the rank of the least frequent query that was chosen by its traffic. The traffic
    is `labelled` (0 to 1) of what people ask: the rest was never to be labelled.
    """

    entries: list[tuple[str, str]]
    traffic_share: float
    bytes: int
    people: int
    ended: Ended
    cut: int
    aliases: list[tuple[str, str]] = field(default_factory=list)
    false_hits: FalseHits | None = None
    labelled: float = 1.0

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What is published: the entries, then the aliases."""
        return [*self.entries, *self.aliases]

    @property
    def hit_rate(self) -> float:
        """The share of lookups (0 to 1) that it will answer, if tomorrow's traffic is today's."""
        extra = self.false_hits.extra if self.aliases and self.false_hits else 0.0
        return (self.traffic_share + extra) * self.labelled


def choose_head(
    queries: Sequence[tuple[str, float]], labels: Mapping[str, str], people: Mapping[str, str], limits: Limits
) -> Head:
    """The queries that people answered, whatever their traffic, then the most frequent others that have a label, until
    the first limit is met.

    `queries` are all distinct queries with their traffic; `labels` and `people` map queries to the entries that are fit to
    publish. A query without one is passed over, and its traffic stays uncovered. People's answers end at a limit of entries or
    of memory alone. Equal traffic goes by text, so that a head is reproducible. Raises SettingsError for a share outside 0 to 1.
    """
    if not 0 <= limits.share <= 1:
        wanted = "wanted a share of the traffic from 0 to 1"
        raise SettingsError(f"cache.head_share: {wanted}, got {limits.share}; 0.8 covers 80%")
    traffic, found = dict(queries), {**labels, **people}
    others = [query for query in traffic if query in labels and query not in people]
    total, covered, text = sum(traffic.values()), 0.0, 0
    held: set[str] = set()
    ended: Ended = "labels"
    for query in [*_frequent(people, traffic), *_frequent(others, traffic)]:
        more = line_bytes(query, found[query])
        if query not in people and covered >= limits.share * total:
            ended = "share"
        elif limits.entries is not None and len(held) >= limits.entries:
            ended = "entries"
        elif limits.mib is not None and _bytes(text + more, len(held) + 1) > limits.mib * MIB:
            ended = "memory"
        if ended != "labels":
            break
        held.add(query)
        covered, text = covered + traffic.get(query, 0.0), text + more
    entries = [(query, found[query]) for query in _frequent(held, traffic)]
    rank = {query: place for place, query in enumerate(_frequent(traffic, traffic), start=1)}
    return Head(
        entries=entries,
        traffic_share=coverage(queries, held),
        bytes=forecast_bytes(entries),
        people=sum(query in people for query in held),
        ended=ended,
        cut=max((rank[query] for query in held if query not in people), default=0),
    )


def with_aliases(head: Head) -> Head:
    """The head with the lines of its queries' canonical forms, and what it then takes."""
    entry = dict(head.entries)
    lines = [(alias(form), entry[query]) for form, query in aliases([query for query, _ in head.entries]).items()]
    text = sum(starmap(line_bytes, [*head.entries, *lines]))
    return replace(head, aliases=lines, bytes=_bytes(text, len(head.entries)))  # the buckets stay as many


def coverage(queries: Sequence[tuple[str, float]], held: Collection[str]) -> float:
    """The share (0 to 1) of the traffic of `queries` that those of them make which are `held`."""
    held = frozenset(held)
    total = sum(traffic for _, traffic in queries)
    return sum(traffic for query, traffic in queries if query in held) / total if total else 0.0


def _frequent(queries: Collection[str], traffic: Mapping[str, float]) -> list[str]:
    """The queries, most frequent first."""
    return sorted(queries, key=lambda query: (-traffic.get(query, 0.0), query))


def _bytes(text: int, entries: int) -> int:
    return generation_bytes(text, bucket_count(entries))
