"""The one question of online callers: what does this query name? Redis answers, on a miss the student, in time.

async with Lookup(connect_async(url), {student.name: student}, SemanticRoles) as lookup:
    answer = await lookup.get("organic whole milk")
"""

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from math import inf
from time import perf_counter, time
from typing import NamedTuple, Self

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
        process_entries: int = 10_000,
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
        milliseconds = (perf_counter() - started) * 1000
        self.journal.answered(found.source, milliseconds)
        if found.source != "cache":
            self.journal.missed(self._mask(kept.query))
        return found.stamped(kept.query, tier.release, milliseconds)

    async def get(self, query: str) -> Answer:
        """The answer for any text a shopper may have typed, within the deadline.

        Where there is none, `source` is "none" and `reason` says why: a failing Redis or student raises nothing.
        Raises InputError for a query that is empty or too long.
        """
        if answer := self.known(query):
            return answer
        started = perf_counter()
        until = asyncio.get_running_loop().time() + self.deadline
        await self._watch.first(self.deadline * REDIS_SHARE)
        state, tier, normal = self._watch.state, self._tier, _checked(query)
        found, missed = await self._find_one(state, normal, until)
        answer = found.stamped(normal, tier.release, (perf_counter() - started) * 1000)
        self._count(answer, missed)
        if state is self._watch.state:  # else what was found may no longer be what is to be answered
            self._keep(tier, query, normal, found, started, normal in missed)
        return answer

    async def get_many(self, queries: Sequence[str]) -> list[Answer]:
        """The answers, in order, within one deadline, all of one release. As `get` in everything else."""
        started = perf_counter()
        until = asyncio.get_running_loop().time() + self.deadline
        await self._watch.first(self.deadline * REDIS_SHARE)
        state, tier = self._watch.state, self._tier  # from here on to the end, whatever is switched meanwhile
        held = {typed: one for typed in queries if (one := tier.get(typed)) and one.until > started}
        wanted = {typed: _checked(typed) for typed in queries if typed not in held}
        found, missed = await self._find(state, dict.fromkeys(wanted.values()), until) if wanted else ({}, set())
        spent = (perf_counter() - started) * 1000
        stamped = {query: one.stamped(query, tier.release, spent) for query, one in found.items()}
        answers = {typed: one.found.stamped(one.query, tier.release, spent) for typed, one in held.items()}
        missed |= {answer.query for answer in answers.values() if answer.source != "cache"}
        answers |= {typed: stamped[query] for typed, query in wanted.items()}
        for typed in queries:
            self._count(answers[typed], missed)
        if state is self._watch.state:  # else what was found may no longer be what is to be answered
            for typed, query in wanted.items():
                self._keep(tier, typed, query, found[query], started, query in missed)
        return [answers[typed] for typed in queries]

    async def _find_one(self, state: State, query: str, until: float) -> tuple[Found, Container[str]]:
        """As `_find`, without what it costs to keep many apart."""
        release, asked = state.release, (query,)
        if release is None or self._watch.away or query in state.people:
            found, unheld = await self._find(state, asked, until)
            return found[query], unheld
        place = _place(release, query)
        keys = (place.bucket, place.tail) if self._tail.seconds else (place.bucket,)
        try:
            bucket, *tail = await self._watch.read_many(self.deadline * REDIS_SHARE, keys)
        except UNREACHED:
            return (await self._tail.ask_all(release, {query: ""}, self._watch.away, until))[query], ()
        one, read = self._head(state, query, place, bucket)
        if one:
            return one, ()
        missed: Container[str] = asked if read else ()
        if tail and (one := self._said_before(release, tail[0])):
            return one, missed
        kept_at = self._kept_at(query, place) if read else ""
        return (await self._tail.ask_all(release, {query: kept_at}, self._watch.away, until))[query], missed

    async def _find(self, state: State, queries: Iterable[str], until: float) -> tuple[dict[str, Found], set[str]]:
        """An answer for each query (in normal form), whoever has one; and which queries the head is known not to have."""
        release, left = state.release, list(queries)
        if release is None:
            if self._watch.reached:
                return dict.fromkeys(left, nothing(state.reason)), set()
            return await self._tail.ask_all(None, dict.fromkeys(left, ""), self._watch.away, until), set()
        found = {query: said for query in left if (said := state.people.get(query))}
        places = {query: _place(release, query) for query in left if query not in found}
        missed: set[str] = set()
        if places and not self._watch.away:
            with suppress(*UNREACHED):
                found |= await self._read(state, release, places, missed)
        left = [query for query in places if query not in found]
        if left:
            keys = {query: self._kept_at(query, places[query]) if query in missed else "" for query in left}
            found |= await self._tail.ask_all(release, keys, self._watch.away, until)
        return found, missed

    async def _read(
        self, state: State, release: Release, places: Mapping[str, "_Place"], missed: set[str]
    ) -> dict[str, Found]:
        """What Redis holds for the queries, in one round trip; what the head has not got is put into `missed`.

        Raises one of UNREACHED.
        """
        buckets = [place.bucket for place in places.values()]
        tails = [place.tail for place in places.values()] if self._tail.seconds else []
        raw = await self._watch.read_many(self.deadline * REDIS_SHARE, buckets + tails)
        found = {}
        for (query, place), bucket, tail in zip_longest(places.items(), raw[: len(buckets)], raw[len(buckets) :]):
            one, read = self._head(state, query, place, bucket)
            if one is None and read:
                missed.add(query)
            if one := one or self._said_before(release, tail):
                found[query] = one
        return found

    def _head(self, state: State, query: str, place: "_Place", bucket: bytes | None) -> tuple[Found | None, bool]:
        """What the head says, and whether it could be read: where it is broken, or no answer of the task, it could not."""
        if bucket is None:
            return None, True
        try:
            lines = unseal(bucket)
            entry = find(lines, query)
            if entry is None and place.alias is not None:
                entry = find(lines, place.alias)
            return None if entry is None else self._opener.open(entry, "cache", state.made), True
        except BrokenError:
            self._refused("corrupted")
            return None, False

    def _said_before(self, release: Release, raw: bytes | None) -> Found | None:
        """What the student said when it was last asked. As `_head` in everything else."""
        if raw is None:
            return None
        try:
            return open_answer(raw, release.student, self._opener)
        except BrokenError:
            self._refused("corrupted")
            return None

    def _kept_at(self, query: str, place: "_Place") -> str:
        """Where Redis is to keep what the student answers; "", nowhere, for a query that says something of a person."""
        return place.tail if self._mask(query) == query else ""

    def _keep(self, tier: Tier, typed: str, query: str, found: Found, now: float, missed: bool) -> None:
        """Keep an answer in this process: the student's no longer than Redis does.

        Where the head could not be read it may have a better one: the student's is then kept for a moment only.
        """
        if found.source == "cache":
            tier.keep(typed, Kept(query, found, inf))
        elif found.made is not None:
            seconds = self._tail.seconds - (time() - found.made) if missed else UNREAD_SECONDS
            tier.keep(typed, Kept(query, found._replace(source="tail-cache"), now + seconds))

    def _count(self, answer: Answer, missed: Container[str]) -> None:
        self.journal.answered(answer.source, answer.milliseconds)
        if answer.query in missed:
            self.journal.missed(self._mask(answer.query))

    def _refused(self, what: str) -> None:
        self.journal.refused(what)

    def _switched(self, before: State, after: State) -> None:
        """Forget what the process holds of another release, and what people said something else of."""
        if before.release != after.release:
            self._tier = Tier(self._process_entries, after.release.release if after.release else None)
        else:
            self._tier.drop({query for query, _ in before.people.items() ^ after.people.items()})

    async def _flush_always(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if not self._watch.away:
                await self.journal.flush(self.redis)


class _Place(NamedTuple):
    """Where a query's answers lie; `alias` is the line of its canonical form, where the release is canonical."""

    bucket: str
    tail: str
    alias: str | None


def _place(release: Release, query: str) -> _Place:
    placed, alias = query, None
    if release.canonical:
        from cache import canonical  # its stemmer is loaded only where it is used

        placed = canonical.canonical(query)
        alias = canonical.alias(placed)
    bucket = bucket_of(placed, release.buckets)
    return _Place(bucket_key(release.generation, bucket), tail_key(release.generation, bucket, query), alias)


def _checked(query: str) -> str:
    """The query in normal form. Raises InputError where it is empty or too long."""
    normal = normalise(query)
    if not normal:
        raise InputError("wanted a query, got an empty one; give some text")
    if len(normal) > MAX_QUERY_CHARS:
        raise InputError(f"wanted a query of at most {MAX_QUERY_CHARS} characters, got {len(normal)}; shorten it")
    return normal
