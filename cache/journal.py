"""What lookups leave behind: answers counted by source and latency, and the queries that the head had no answer for.

The counts of a process since it started are what /metrics shows. Once a second or so they are also written to Redis, where
the night reads them by day: each process writes its own totals of the day, so that a write done twice counts once.
"""

import asyncio
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from time import time
from uuid import uuid4

from redis.exceptions import RedisError

from cache.client import UNREACHED, AsyncClient
from cache.layout import DAY, MISSES

SOURCES = ("cache", "tail-cache", "student", "none")
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, inf)
"""Upper bounds of the latency buckets, in milliseconds: a bucket holds what took longer than the bound before, up to its own."""
DAYS_KEPT = 60  # days that a day's counts stay in Redis
MISS_DAYS = 14  # days that misses stay in the stream: a log that is exported once a week holds them by then
STREAM_LENGTH = 1_000_000  # entries of the stream, about: 42 MB of queries of 26 characters
BUFFERED = 20_000  # different missed queries that wait for Redis; more are counted as lost
SECONDS = 5.0  # that a flush waits for Redis
CHUNK = 200  # misses sent at once: packing more would hold up the lookups between two of the event loop's turns
NOTHING = "{}"


def today() -> str:
    """The present day in UTC, ISO 8601."""
    return datetime.now(UTC).date().isoformat()


@dataclass(slots=True)
class Counts:
    """Answers by source and latency bucket, milliseconds they took together, and the rest that is counted.

    `misses` are queries the head had no answer for, `lost` those of them that will not reach the stream. `refused` counts
    by reason what was turned down: a corrupted entry, a question for which the queue was full, a student's answer.
    """

    latency: dict[str, list[int]] = field(default_factory=lambda: {source: [0] * len(BOUNDS) for source in SOURCES})
    milliseconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SOURCES, 0.0))
    refused: Counter[str] = field(default_factory=Counter)
    misses: int = 0
    lost: int = 0

    def answers(self, source: str) -> int:
        """How many answers came from `source`."""
        return sum(self.latency[source])

    def copy(self) -> "Counts":
        """The same counts, which no longer change."""
        latency = {source: list(counts) for source, counts in self.latency.items()}
        return Counts(latency, dict(self.milliseconds), Counter(self.refused), self.misses, self.lost)

    def since(self, start: "Counts") -> str:
        """What was counted after `start`, as a day's hash holds it (cache.days reads it): JSON, zeros left out."""
        latency = {
            source: {f"{b:g}": n - m for b, n, m in zip(BOUNDS, counts, start.latency[source], strict=True) if n > m}
            for source, counts in self.latency.items()
        }
        told = {
            "latency": {source: counts for source, counts in latency.items() if counts},
            "refused": dict(self.refused - start.refused),
            "misses": self.misses - start.misses,
            "lost": self.lost - start.lost,
        }
        return json.dumps({name: value for name, value in told.items() if value}, separators=(",", ":"))


class Journal:
    """One process's journal: `counts` is what happened since it was made, `failures` how many flushes failed.

    `answered`, `missed` and `refused` only add to numbers in memory, and take a third of a microsecond. `flush` belongs to one
    event loop; of two threads that count at the same instant one may go uncounted.
    """

    def __init__(self, *, days: bool = True, misses: bool = True, today: Callable[[], str] = today) -> None:
        """Without `days` the counts stay in this process, without `misses` the missed queries go nowhere.

        `today` says which day it is, as `today` here does: UTC, ISO 8601.
        """
        self._writes_days, self._keeps_misses = days, misses
        self.counts, self.failures = Counts(), 0
        self._latency, self._milliseconds = self.counts.latency, self.counts.milliseconds
        self._waiting: dict[str, int] = {}  # missed queries that are not in the stream yet, with how often
        self._process = uuid4().hex[:16]
        self._today, self._day, self._dawn = today, today(), Counts()  # the counts at the start of the day
        self._ended: dict[str, str] = {}  # of days that are over, what Redis has not got yet
        self._written = ""  # of this day, as Redis has got it
        self._flushing = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """Different missed queries that wait for Redis."""
        return len(self._waiting)

    def answered(self, source: str, milliseconds: float, n: int = 1) -> None:
        """Count `n` answers from `source` (one of SOURCES) that took so long."""
        self._latency[source][bisect_left(BOUNDS, milliseconds)] += n
        self._milliseconds[source] += milliseconds * n

    def missed(self, query: str) -> None:
        """Note that the head had no answer to `query` (in normal form), whoever gave one after that."""
        self.counts.misses += 1
        if self._keeps_misses:
            self._wait(query, 1)

    def refused(self, what: str) -> None:
        """Count something turned down."""
        self.counts.refused[what] += 1

    async def flush(self, redis: AsyncClient) -> bool:
        """Write to Redis what it has not got yet; whether that was done. Nothing is raised where Redis fails.

        First come the day's totals, which may be written again without harm, and only when Redis answered to them the misses.
        These are sent twice only where the connection broke between Redis's taking them and its answer, or where that
        took longer than SECONDS, and then no more than CHUNK entries of them.
        """
        async with self._flushing:
            waiting, self._waiting = self._waiting, {}
            done = False
            try:
                async with asyncio.timeout(SECONDS):
                    done = await self._write_days(redis) and await self._write_misses(redis, waiting)
            except (*UNREACHED, RedisError):
                pass  # counted below
            finally:
                for query in list(waiting):  # what was not written
                    self._wait(query, waiting[query])
                self.failures += not done
            return done

    def _wait(self, query: str, count: int) -> None:
        if query in self._waiting or len(self._waiting) < BUFFERED:
            self._waiting[query] = self._waiting.get(query, 0) + count
        else:
            self.counts.lost += count

    async def _write_days(self, redis: AsyncClient) -> bool:
        """Write this process's totals of the day, and of days that ended since the last flush."""
        if (day := self._today()) != self._day:
            self._ended[self._day] = self.counts.since(self._dawn)
            self._day, self._dawn, self._written = day, self.counts.copy(), ""
        totals = self.counts.since(self._dawn)
        days = self._ended | ({day: totals} if totals not in (self._written, NOTHING) else {})
        if not days or not self._writes_days:
            return True
        pipe = redis.pipeline(transaction=False)
        for one, told in days.items():
            pipe.hset(DAY + one, self._process, told)
            pipe.expire(DAY + one, DAYS_KEPT * 86_400)
        if any(isinstance(answer, Exception) for answer in await pipe.execute(raise_on_error=False)):
            return False
        self._ended, self._written = {}, totals
        return True

    async def _write_misses(self, redis: AsyncClient, waiting: dict[str, int]) -> bool:
        """Add the misses to the stream, and to the day's different ones; what was written leaves `waiting`."""
        queries = list(waiting)
        for start in range(0, len(queries), CHUNK):
            chunk = {query: query.encode(errors="replace") for query in queries[start : start + CHUNK]}
            pipe = redis.pipeline(transaction=False)
            pipe.pfadd(missed_key(self._day), *chunk.values())
            pipe.expire(missed_key(self._day), DAYS_KEPT * 86_400)
            pipe.xtrim(MISSES, minid=str(int((time() - MISS_DAYS * 86_400) * 1000)), approximate=True)
            for query, text in chunk.items():
                pipe.xadd(MISSES, {"q": text, "n": waiting[query]}, maxlen=STREAM_LENGTH, approximate=True)
            answers = await pipe.execute(raise_on_error=False)
            for query, answer in zip(chunk, answers[3:], strict=True):
                if not isinstance(answer, Exception):
                    del waiting[query]
        return not waiting


def missed_key(day: str) -> str:
    """The key of a day's different missed queries, a HyperLogLog; those of all days lie in one slot of a Cluster."""
    return f"{DAY}{{missed}}:{day}"
