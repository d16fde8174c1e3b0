"""The days' lookups, as every process's journal left them in Redis, put together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import inf, isnan
from typing import Any

from pydantic_core import from_json
from redis.exceptions import ResponseError

from cache.client import Client, reaching
from cache.journal import SOURCES, missed_key
from cache.layout import DAY
from labels.errors import ServiceError

NEW_AFTER = 7  # days: a query is new where it was not missed in so many days before


@dataclass(frozen=True)
class Day:
    """A day's lookups.

    `latency`: by source, the answers in each bucket by its upper bound in milliseconds. `misses`: lookups that the head had
    no answer for, `lost` those of them that never came into the stream, `missed` the different queries among them (within
    1% or so), `new` those that none of the NEW_AFTER days before had missed, None where lookups were not counted for so
    long. `unreadable` processes left what can't be read.
    """

    day: str
    latency: Mapping[str, Mapping[float, int]]
    refused: Mapping[str, int]
    misses: int
    lost: int
    missed: int
    new: int | None
    unreadable: int

    def answers(self, source: str) -> int:
        """How many answers came from `source`."""
        return sum(self.latency.get(source, {}).values())

    @property
    def total(self) -> int:
        """All answers, those that are `none` too."""
        return sum(map(self.answers, self.latency))

    def quantile(self, source: str, share: float) -> float | None:
        """The upper bound, in milliseconds, of the bucket that this quantile of its latencies is in; None without any."""
        wanted, seen = share * self.answers(source), 0
        for bound, count in sorted(self.latency.get(source, {}).items()):
            seen += count
            if count and seen >= wanted:
                return bound
        return None


def read_days(client: Client, last: date, days: int) -> list[Day]:
    """The days up to `last` that had lookups, at most `days` of them, the oldest first.

    Raises ServiceError where Redis can't be reached, or holds something else under a day's key.
    """
    names = [(last - timedelta(days=back)).isoformat() for back in range(days + NEW_AFTER - 1, -1, -1)]
    try:
        with reaching(client):
            held: dict[str, Any] = {name: client.hgetall(DAY + name) for name in names}
            found = []
            for place in range(NEW_AFTER, len(names)):
                name, before = names[place], names[place - NEW_AFTER : place]
                missed, new = _different(
                    client, name, before if any(map(held.get, names[: place - NEW_AFTER + 1])) else []
                )
                if (told := day_of(name, list(held[name].values()), missed, new)).total:
                    found.append(told)
            return found
    except ResponseError as error:
        raise ServiceError(
            f"wanted the counts of lookups under {DAY}… in Redis, got: {error}; see what lies there and remove it"
        ) from error


def day_of(name: str, totals: Sequence[bytes], missed: int = 0, new: int | None = None) -> Day:
    """A day from the totals of its processes (`Counts.since`)."""
    latency: dict[str, Counter[float]] = {source: Counter() for source in SOURCES}
    refused: Counter[str] = Counter()
    misses = lost = unreadable = 0
    for raw in totals:
        try:
            told = from_json(raw)
            buckets = {
                (source, _bound(bound)): _count(count)
                for source, counts in told.get("latency", {}).items()
                for bound, count in counts.items()
            }
            turned_down = {str(what): _count(count) for what, count in told.get("refused", {}).items()}
            its_misses, its_lost = _count(told.get("misses", 0)), _count(told.get("lost", 0))
            if any(source not in SOURCES for source, _ in buckets):
                raise ValueError(f"wanted sources among {SOURCES}")
        except (ValueError, AttributeError):
            unreadable += 1
            continue
        for (source, bound), count in buckets.items():
            latency[source][bound] += count
        refused.update(turned_down)
        misses, lost = misses + its_misses, lost + its_lost
    return Day(name, latency, refused, misses, lost, missed, new, unreadable)


def _different(client: Client, name: str, before: Sequence[str]) -> tuple[int, int | None]:
    """A day's different missed queries; those of them that the days `before` had not, None where there are no such days."""
    missed = client.pfcount(missed_key(name))
    if not before:
        return int(missed), None
    keys = [missed_key(one) for one in before]
    return int(missed), max(int(client.pfcount(*keys, missed_key(name))) - int(client.pfcount(*keys)), 0)


def _bound(text: str) -> float:
    if isnan(bound := float(text)) or not 0 < bound <= inf:
        raise ValueError("wanted a latency")
    return bound


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("wanted a count")
    return value
