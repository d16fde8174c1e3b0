"""The one question of online callers: what does this query name? Redis answers, on a miss the student, in time.

async with Lookup(connect_async(url), {student.name: student}, SemanticRoles) as lookup:
    answer = await lookup.get("organic whole milk")
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from time import perf_counter, time
from typing import Any, Protocol, Self

from redis.exceptions import RedisError

from cache.answer import Answer, Found, Opener, as_json, nothing
from cache.breaker import Breaker
from cache.client import AsyncClient
from cache.flights import Flights, FullError
from cache.journal import Journal
from cache.layout import BrokenError, bucket_key, bucket_of, find, tail_key, unseal
from cache.tail import open_answer, pack_answer
from cache.tier import Kept, Tier
from cache.watch import UNREACHED, State, Watch
from labels.errors import EngineError, InputError
from labels.guardrails import check
from labels.normalise import MAX_QUERY_CHARS, normalise
from labels.records import Release
from labels.task import Task

DEADLINE_SECONDS = 0.3
REDIS_SHARE = 1 / 3  # of the deadline: a slow Redis leaves the student the rest
FLUSH_SECONDS = 1.0


class Student(Protocol):
    """The served student, as lookup needs it. `name` is the student's id in the release it belongs to."""

    @property
    def name(self) -> str:
        """The student's id, as `Release.student` names it."""

    async def ask(self, query: str) -> tuple[str, float]:
        """Its raw JSON answer and its confidence. Raises EngineError where it can't answer, InputError for a bad answer."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a query's answers lie in the generation being served; `alias` is the line of its canonical form, if any."""

    bucket: str
    tail: str
    alias: str | None


class Lookup:
    """Answers queries from the release being served; it takes over `redis` and closes it.

    `journal` counts what was answered and missed, `flights` are the questions put to the student, `breaker` is its
    circuit breaker.
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
    ) -> None:
        """`redis` is as `connect_async` makes it; `deadline` is in seconds, for a whole question.

        `students` are the clients by name, and may change: the release being served says which one is asked; none for the
        cache alone. The process keeps `process_entries` answers, Redis a student's for `tail_seconds`; `in_flight`
        questions are put to the student at once and `queue` more wait.
        """
        self.redis, self.students, self.task, self.deadline = redis, students, task, deadline
        self.journal = Journal()
        self.flights: Flights[Found] = Flights(in_flight, queue)
        self._tail_seconds, self._process_entries = tail_seconds, process_entries
        self._opener = Opener(task)
        self._breakers: dict[str, Breaker] = {}
        self._tier = Tier(process_entries)
        self._watch = Watch(redis, task, self._switched, self.journal.refused)
        self._background: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Begin to watch what Redis serves; nothing is waited for before the first question."""
        self._watch.start()
        self._run(self._flush_always())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Drop the questions under way, write what the journal holds, and close the connections to Redis."""
        await self.flights.aclose()
        await self._watch.aclose()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if not self._watch.away:
            await self.journal.flush(self.redis)
        await self.redis.aclose()

    @property
    def breaker(self) -> Breaker:
        """The circuit breaker of the student of the release being served."""
        release = self._watch.state.release
        return self._breaker(release.student if release else "")

    async def current(self) -> tuple[Release | None, str]:
        """The release being served, or None and why; where it can't be told whether it still is, why that is."""
        await self._watch.first(self.deadline * REDIS_SHARE)
        state = self._watch.state
        return state.release, self._watch.away or state.reason

    def known(self, query: str) -> Answer | None:
        """The answer that this process holds for a text as it was typed, at once; None where it holds none."""
        started = perf_counter()
        kept = self._tier.get(query)
        if kept is None or kept.until < started:
            return None
        release = self._watch.state.release
        milliseconds = round((perf_counter() - started) * 1000, 3)
        self.journal.answered(kept.source, milliseconds)
        if kept.source != "cache":
            self.journal.missed(kept.query)
        return Answer(
            kept.query,
            kept.value_json,
            kept.source,
            release.release if release else None,
            kept.confidence,
            max(0, int(time() - kept.made)),
            "",
            milliseconds,
        )

    async def get(self, query: str) -> Answer:
        """The answer for any text a shopper may have typed, within the deadline.

        Where there is none, `source` is "none" and `reason` says why: a failing Redis or student raises nothing.
        Raises InputError for a query that is empty or too long.
        """
        return self.known(query) or (await self.get_many([query]))[0]

    async def get_many(self, queries: Sequence[str]) -> list[Answer]:
        """The answers, in order, within one deadline, all of one release. As `get` in everything else."""
        started = perf_counter()
        until = asyncio.get_running_loop().time() + self.deadline
        await self._watch.first(self.deadline * REDIS_SHARE)
        state, tier = self._watch.state, self._tier
        release = state.release.release if state.release else None
        answers = [self.known(query) for query in queries]
        wanted = {query: _checked(query) for query, answer in zip(queries, answers, strict=True) if answer is None}
        if wanted:
            found = await self._find(state, list(dict.fromkeys(wanted.values())), until)
            spent = (perf_counter() - started) * 1000
            for place, typed in enumerate(queries):
                if answers[place] is None:
                    query = wanted[typed]
                    answers[place] = found[query].stamped(query, release, spent)
                    self.journal.answered(found[query].source, spent)
            if state is self._watch.state:  # else what was found is no longer to be kept
                for typed, query in wanted.items():
                    self._keep(tier, typed, query, found[query], started)
        return [answer for answer in answers if answer is not None]

    async def _find(self, state: State, queries: Sequence[str], until: float) -> dict[str, Found]:
        """An answer for each query (in normal form), whoever has one."""
        if state.release is None and self._watch.reached:
            return dict.fromkeys(queries, nothing(state.reason))
        found = {query: said for query in queries if (said := state.people.get(query))}
        left = [query for query in queries if query not in found]
        if state.release and left and not self._watch.away:
            found |= await self._read(state, state.release, left)
            left = [query for query in left if query not in found]
        if left:
            found |= await self._ask_all(state, left, until)
        for query, one in found.items():
            if one.source != "cache":
                self.journal.missed(query)
        return found

    async def _read(self, state: State, release: Release, queries: Sequence[str]) -> dict[str, Found]:
        """What Redis holds for the queries, in one round trip."""
        places = [self._place(release, query) for query in queries]
        keys = [
            key for place in places for key in ((place.bucket, place.tail) if self._tail_seconds else (place.bucket,))
        ]
        try:
            raw = await self._watch.read_many(self.deadline * REDIS_SHARE, keys)
        except UNREACHED:
            return {}
        found = {}
        step = len(keys) // len(places)
        for number, (query, place) in enumerate(zip(queries, places, strict=True)):
            bucket, tail = raw[number * step], raw[number * step + 1] if step == 2 else None
            if one := self._head(state, query, place, bucket) or self._tail(release, tail):
                found[query] = one
        return found

    def _head(self, state: State, query: str, place: _Place, bucket: bytes | None) -> Found | None:
        """What the head says. None, so that the student is asked, for no entry and for a broken or misfit one."""
        if bucket is None:
            return None
        try:
            lines = unseal(bucket)
            entry = find(lines, query)
            if entry is None and place.alias is not None:
                entry = find(lines, place.alias)
            return None if entry is None else self._opener.open(entry, "cache", state.made)
        except BrokenError:
            self.journal.refused("corrupted")
            return None

    def _tail(self, release: Release, raw: bytes | None) -> Found | None:
        """What the student said before."""
        if raw is None:
            return None
        try:
            return open_answer(raw, release.student, self._opener)
        except BrokenError:
            self.journal.refused("corrupted")
            return None

    async def _ask_all(self, state: State, queries: Sequence[str], until: float) -> dict[str, Found]:
        """The student's answers to what nobody else has one for."""
        student = self._student(state)
        if isinstance(student, str):
            return dict.fromkeys(queries, nothing("; ".join(filter(None, [self._watch.away, student]))))
        if len(queries) == 1:  # the usual case needs no task of its own
            return {queries[0]: await self._ask(state, student, queries[0], until)}
        answers = await asyncio.gather(*(self._ask(state, student, query, until) for query in queries))
        return dict(zip(queries, answers, strict=True))

    def _student(self, state: State) -> Student | str:
        """The student to ask, or why there is none."""
        if not self.students:
            return "no student is served" if self._watch.away else "not in the cache; no student is served"
        if state.release is None:
            return next(iter(self.students.values()))
        if student := self.students.get(state.release.student):
            return student
        return (
            f"release {state.release.release} goes with student {state.release.student}, but {', '.join(self.students)} is"
            " served; restart the server (`stillhouse serve`)"
        )

    async def _ask(self, state: State, student: Student, query: str, until: float) -> Found:
        """Wait for the student's answer until the deadline, with everyone else who waits for the same query."""
        key = (state.release.release if state.release else None, query)
        if self._breaker(student.name).blocks and not self.flights.has(key):
            return nothing("the student failed several times in a row; it is tried again in a moment")
        try:
            return await self.flights.join(key, lambda: self._fly(state, student, query), until)
        except FullError:
            self.journal.refused("queue full")
            most = self.flights.in_flight + self.flights.queue
            return nothing(f"the student is busy: {most} questions are under way and waiting already")
        except TimeoutError:
            return nothing(f"no answer within {self.deadline * 1000:.0f} ms")

    async def _fly(self, state: State, student: Student, query: str) -> Found:
        """Ask the student once; its answer passes what the teacher's passes."""
        breaker = self._breaker(student.name)
        if not breaker.start():
            return nothing("the student failed several times in a row; it is tried again in a moment")
        try:
            raw, confidence = await student.ask(query)
        except EngineError as error:
            breaker.failed()
            return nothing(f"the student can't answer: {error}")
        except InputError as error:
            breaker.succeeded()
            return nothing(f"the student's answer breaks the schema: {error}")
        except asyncio.CancelledError:
            breaker.failed()
            raise
        breaker.succeeded()
        try:
            answer = self.task.parse(raw)
        except InputError as error:
            return nothing(f"the student's answer breaks the schema: {error}")
        if rejection := check(answer, query):
            return nothing(f"the student's answer was rejected, {rejection}")
        found = Found(as_json(answer), "student", confidence, time())
        if state.release and self._tail_seconds and not self._watch.away:
            packed = pack_answer(student.name, answer.model_dump(), confidence, int(time()))
            self._run(self._write(self._place(state.release, query).tail, packed))
        return found

    async def _write(self, key: str, packed: bytes) -> None:
        """Keep a student's answer in Redis; where that fails it is asked again."""
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(self.deadline):
                await self.redis.set(key, packed, ex=self._tail_seconds)

    def _place(self, release: Release, query: str) -> _Place:
        placed, alias = query, None
        if release.canonical:
            from cache import canonical

            placed = canonical.canonical(query)
            alias = canonical.alias(placed)
        bucket = bucket_of(placed, release.buckets)
        return _Place(bucket_key(release.generation, bucket), tail_key(release.generation, bucket, query), alias)

    def _keep(self, tier: Tier, typed: str, query: str, found: Found, now: float) -> None:
        """Keep an answer in the process: the student's no longer than Redis would."""
        if found.value_json is None or found.made is None:
            return
        source, until = found.source, inf
        if source != "cache":
            source, until = "tail-cache", now + self._tail_seconds - (time() - found.made)
        if until > now:
            tier.keep(typed, Kept(query, found.value_json, source, found.confidence, found.made, until))

    def _switched(self, before: State, after: State) -> None:
        if before.release != after.release:
            self._tier = Tier(self._process_entries)
        else:
            changed = {query for query, _ in before.people.items() ^ after.people.items()}
            self._tier.drop(changed)

    def _breaker(self, student: str) -> Breaker:
        return self._breakers.setdefault(student, Breaker())

    async def _flush_always(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if not self._watch.away:
                await self.journal.flush(self.redis)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _checked(query: str) -> str:
    """The query in normal form. Raises InputError where it is empty or too long."""
    normal = normalise(query)
    if not normal:
        raise InputError("wanted a query, got an empty one; give some text")
    if len(normal) > MAX_QUERY_CHARS:
        raise InputError(f"wanted a query of at most {MAX_QUERY_CHARS} characters, got {len(normal)}; shorten it")
    return normal
