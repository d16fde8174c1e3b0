"""The one question of online callers: what does this query name? Redis answers, on a miss the student, in time.

async with Lookup(connect_async(url), {student.name: student}, SemanticRoles) as lookup:
    answer = await lookup.get("organic whole milk")
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import repeat, zip_longest
from math import inf
from time import perf_counter, time
from typing import Self, TypeAlias

from cache.answer import Answer, Found, Opener, nothing
from cache.breaker import Breaker
from cache.client import AsyncClient
from cache.flights import Flights
from cache.journal import Journal
from cache.layout import BrokenError, bucket_key, bucket_of, find, tail_key, unseal
from cache.tail import Student, Tail, open_answer
from cache.tier import Kept, Tier
from cache.watch import UNREACHED, State, Watch
from labels.errors import InputError
from labels.normalise import MAX_QUERY_CHARS, normalise
from labels.records import Release
from labels.task import Task

DEADLINE_SECONDS = 0.3
REDIS_SHARE = 1 / 3  # of the deadline: a slow Redis leaves the student the rest
FLUSH_SECONDS = 1.0
PROCESS_ENTRIES = 50_000  # about 36 MB; with Zipf traffic over a million queries they answer 71% of it
UNREAD_SECONDS = 1.0

__all__ = ["Answer", "Lookup", "Student"]


class Lookup:
    """Answers queries from the release being served; it takes over `redis` and closes it.

    `journal` counts what was answered and missed; `flights` are the questions put to the student.
    """

    def __init__(
        self,
        redis: AsyncClient,
        students: Mapping[str, Student],
        task: type[Task],
        *,
        deadline: float = DEADLINE_SECONDS,
        process_entries: int = PROCESS_ENTRIES,
        tail_seconds: int = 86_400,
        in_flight: int = 64,
        queue: int = 256,
        mask: Callable[[str], str] = str,
        journal: Journal | None = None,
    ) -> None:
        """`redis` is as `connect_async` makes it; `deadline` is in seconds, for a whole question.

        `students` are the clients by name, and may change: the release being served says which one is asked; none for the
        cache alone. The process keeps `process_entries` answers, Redis a student's for `tail_seconds`; `in_flight`
        questions are put to the student at once and `queue` more wait. `mask` gives a query without what is personal: of
        the others nothing is written to Redis. `journal` counts and writes down what is answered.
        """
        self.redis, self.students, self.task, self.deadline = redis, students, task, deadline
        self.journal, self._mask = journal or Journal(), mask
        self.flights: Flights[Found] = Flights(in_flight, queue)
        self._process_entries, self._opener = process_entries, Opener(task)
        self._tier = Tier(process_entries, None)
        self._tail = Tail(redis, students, task, self._refused, self.flights, deadline, tail_seconds)
        self._under_way: UnderWay = {}
        self._watch = Watch(redis, task, self._switched, self._refused)
        self._flushing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to watch what Redis serves; nothing is waited for before the first question."""
        self._watch.start()
        self._flushing = asyncio.create_task(self._flush_always())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Drop the questions under way, write what the journal holds, and close the connections to Redis."""
        await self._tail.aclose()
        if self._flushing:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        if not self._watch.away:
            await self.journal.flush(self.redis)
        await self._watch.aclose()
        await self.redis.aclose()

    @property
    def breaker(self) -> Breaker:
        """The circuit breaker of the student that goes with the release being served."""
        release = self._watch.state.release
        return self._tail.breaker(release.student if release else "")

    async def current(self) -> tuple[Release | None, str]:
        """The release being served, or None and why. Where Redis is away, or has lost it, the one last known and why that is."""
        await self._watch.first(self.deadline * REDIS_SHARE)
        return self._watch.state.release, self._watch.away or self._watch.state.reason

    def known(self, query: str) -> Answer | None:
        """The answer that this process holds for a text as it was typed, at once; None where it holds none."""
        started, tier = perf_counter(), self._tier
        kept = tier.get(query)
        if kept is None or kept.until < started:
            return None
        found = kept.found
        milliseconds = round((perf_counter() - started) * 1000, 3)
        self.journal.answered(found.source, milliseconds)
        if found.source != "cache":
            self.journal.missed(self._mask(kept.query))
        return found.stamped(kept.query, tier.release, milliseconds, int(time()))

    async def get(self, query: str) -> Answer:
        """The answer for any text a shopper may have typed, within the deadline.

        Where there is none, `source` is "none" and `reason` says why: a failing Redis or student raises nothing.
        Raises InputError for a query that is empty or too long.
        """
        if answer := self.known(query):
            return answer
        await self._watch.first(self.deadline * REDIS_SHARE)
        asked = self.begin((query,))
        if asked.left:
            await self._find_shared(asked, self._under_way)
        return self.end(asked)[0]

    async def get_many(self, queries: Sequence[str]) -> list[Answer]:
        """The answers, in order, within one deadline, all of one release. As `get` in everything else."""
        await self._watch.first(self.deadline * REDIS_SHARE)
        asked = self.begin(queries)
        if asked.left:
            await self.find(asked)
        return self.end(asked)

    @property
    def readable(self) -> bool:
        """Whether there is a release, and a Redis to read it from."""
        return not self._watch.away and self._watch.state.release is not None

    def begin(self, queries: Sequence[str]) -> "Asked":
        """Queries with what is known of them at once. Raises as `get` does. (This and the next two may be any thread's.)"""
        started, tier, state = perf_counter(), self._tier, self._watch.state
        held = [one if one is not None and one.until > started else None for one in map(tier.get, queries)]
        wanted = {typed: _checked(typed) for typed, one in zip(queries, held, strict=True) if one is None}
        asked = Asked(queries, started, state, tier, held, wanted)
        asked.left = list(dict.fromkeys(wanted.values()))
        if state.people:
            asked.found = {query: said for query in asked.left if (said := state.people.get(query))}
            asked.left = [query for query in asked.left if query not in asked.found]
        return asked

    def keys(self, asked: "Asked") -> list[str]:
        """What to read in one go: the bucket of each query that is left, then where a student's answer to it is kept."""
        release = asked.state.release
        if release is None:
            return []
        generation, count = release.generation, release.buckets
        numbers = [bucket_of(placed, count) for placed in _placed(release, asked.left)]
        keys = [bucket_key(generation, number) for number in numbers]
        if self._tail.seconds:
            keys += map(tail_key, repeat(generation), numbers, asked.left)
        return keys

    def take(self, asked: "Asked", keys: Sequence[str], raw: Sequence[bytes | None]) -> None:
        """Find what there is in the values of these keys, as Redis gave them."""
        count, left, found = len(asked.left), [], asked.found
        for query, bucket, key, tail in zip_longest(asked.left, raw[:count], keys[count:], raw[count:]):
            one = self._head(asked, query, bucket)
            if one is None and tail is not None:
                one = self._said_before(asked.state.release, tail)
            if one is not None:
                found[query] = one
                continue
            left.append(query)
            if key and query in asked.missed and self._mask(query) == query:  # nothing of a person is written
                asked.kept_at[query] = key
        asked.left = left

    async def find(self, asked: "Asked", read: bool = True) -> None:
        """An answer to each query that is left, from Redis (unless that was done: `read`) or whoever has one, in time."""
        state = asked.state
        if state.release is None and self._watch.reached:
            asked.found = dict.fromkeys(asked.left, nothing(state.reason))
            return
        if asked.left and read and state.release and not self._watch.away:
            keys = self.keys(asked)
            with suppress(*UNREACHED):
                self.take(asked, keys, await self._watch.read_many(self.deadline * REDIS_SHARE, keys))
        if asked.left:
            keep = {query: asked.kept_at.get(query, "") for query in asked.left}
            until = asyncio.get_running_loop().time() + self.deadline - (perf_counter() - asked.started)
            asked.found |= await self._tail.ask_all(state.release, keep, self._watch.away, until)

    async def _find_shared(self, asked: "Asked", under_way: "UnderWay") -> None:
        """`find` for one query, once for all who ask it meanwhile."""
        (query,) = asked.left
        while (waiting := under_way.get(query)) is not None:
            future: asyncio.Future[Asked | None] = asyncio.get_running_loop().create_future()
            waiting.append(future)
            if same := await future:  # it has come by its asker's deadline, which is before this one's
                asked.found, asked.missed = same.found, same.missed
                return
        waiting, same = under_way.setdefault(query, []), None
        try:
            await self.find(asked)
            same = asked
        finally:  # where its asker has left, one of those who wait asks
            del under_way[query]
            for future in waiting:
                if not future.done():
                    future.set_result(same)

    def end(self, asked: "Asked") -> list[Answer]:
        """The answers in order, counted and kept."""
        found, release, now = asked.found, asked.tier.release, time()
        spent, second = round((perf_counter() - asked.started) * 1000, 3), int(now)
        told = []
        for typed, kept in zip(asked.queries, asked.held, strict=True):
            if kept is not None:
                query, one, _ = kept
            else:
                query = asked.wanted[typed]
                one = found[query]
            told.append(one.stamped(query, release, spent, second))
        if hits := [answer.source for answer in told].count("cache"):
            self.journal.answered("cache", spent, hits)
        if hits < len(told):
            self._count_others(asked, told)
        self._keep(asked, now)
        return told

    def _head(self, asked: "Asked", query: str, bucket: bytes | None) -> Found | None:
        """What the head says; where it can be read, and says nothing, the query is among the missed."""
        state = asked.state
        if bucket is not None:
            try:
                lines = unseal(bucket)
                entry = find(lines, query)
                if entry is None and state.release and state.release.canonical:
                    entry = find(lines, _alias(query))
                if entry is not None:
                    return self._opener.open(entry, "cache", state.made)
            except BrokenError:
                self._refused("corrupted")
                return None
        asked.missed.add(query)
        return None

    def _said_before(self, release: Release | None, raw: bytes) -> Found | None:
        """What the student said when it was last asked."""
        try:
            return open_answer(raw, release.student, self._opener) if release else None
        except BrokenError:
            self._refused("corrupted")
            return None

    def _count_others(self, asked: "Asked", told: Sequence[Answer]) -> None:
        """Count the answers that the head had not."""
        for kept, answer in zip(asked.held, told, strict=True):
            if answer.source != "cache":
                self.journal.answered(answer.source, answer.milliseconds)
                if kept is not None or answer.query in asked.missed:
                    self.journal.missed(self._mask(answer.query))

    def _keep(self, asked: "Asked", now: float) -> None:
        """Keep what was found in this process: the student's answers no longer than Redis does.

        Where the head could not be read it may have a better one: the student's is then kept for a moment only.
        """
        if asked.state is not self._watch.state:
            return  # what was found may no longer be what is to be answered
        keep = asked.tier.keep
        for typed, query in asked.wanted.items():
            found = asked.found[query]
            if found.source == "cache":
                keep(typed, Kept(query, found, inf))
            elif found.made is not None:
                seconds = self._tail.seconds - (now - found.made) if query in asked.missed else UNREAD_SECONDS
                keep(typed, Kept(query, found._replace(source="tail-cache"), asked.started + seconds))
        if asked.state is not self._watch.state:  # the watch is of another thread: it may have come in between
            asked.tier.drop(asked.found)

    def _refused(self, what: str) -> None:
        self.journal.refused(what)

    def _switched(self, before: State, after: State) -> None:
        """Forget what the process holds of another release, and what people said something else of."""
        self._under_way = {}
        if before.release != after.release:
            self._tier = Tier(self._process_entries, after.release.release if after.release else None)
        else:
            self._tier.drop({query for query, _ in before.people.items() ^ after.people.items()})

    async def _flush_always(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if not self._watch.away:
                await self.journal.flush(self.redis)


@dataclass(slots=True)
class Asked:
    """Queries on their way to their answers, which are all of one `state`.

    `held` is what the process holds for each, or None; `wanted` has the others by text as typed, in normal form;
    `left` are those without an answer yet, `missed` those that the head is known not to have. `kept_at` says where in
    Redis the student's answer is to be kept. `started` is by `time.perf_counter`.
    """

    queries: Sequence[str]
    started: float
    state: State
    tier: Tier
    held: Sequence[Kept | None]
    wanted: Mapping[str, str]
    found: dict[str, Found] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    missed: set[str] = field(default_factory=set)
    kept_at: dict[str, str] = field(default_factory=dict)


UnderWay: TypeAlias = dict[str, list[asyncio.Future[Asked | None]]]
"""By query under way, who waits for what its first asker finds: himself, or None where that one has left."""


def _placed(release: Release, queries: Sequence[str]) -> Iterable[str]:
    """What these queries' buckets go by."""
    if not release.canonical:
        return queries
    from cache.canonical import canonical  # its stemmer is loaded only where it is used

    return map(canonical, queries)


def _alias(query: str) -> str:
    """The line of a query's canonical form."""
    from cache import canonical

    return canonical.alias(canonical.canonical(query))


def _checked(query: str) -> str:
    """The query in normal form. Raises InputError where it is empty or too long."""
    normal = normalise(query)
    if not normal:
        raise InputError("wanted a query, got an empty one; give some text")
    if len(normal) > MAX_QUERY_CHARS:
        raise InputError(f"wanted a query of at most {MAX_QUERY_CHARS} characters, got {len(normal)}; shorten it")
    return normal
