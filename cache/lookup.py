"""The one question of online callers: what does this query name? Redis answers, on a miss the student, in time.

async with Lookup(connect_async(url), student, SemanticRoles) as lookup:
    answer = await lookup.get("organic whole milk")
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, Protocol, Self

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from cache.client import CONNECTIONS
from cache.layout import RELEASE, Entry, parse_entry, parse_release, query_key
from labels.errors import EngineError, InputError
from labels.guardrails import check
from labels.normalise import MAX_QUERY_CHARS, normalise
from labels.records import Release
from labels.task import Task

DEADLINE_SECONDS = 0.3
REDIS_SHARE = 1 / 3  # of the deadline: a slow Redis leaves the student the rest

Source = Literal["cache", "student", "none"]


class Student(Protocol):
    """The served student, as lookup needs it. `name` is the student's id in the release it belongs to."""

    @property
    def name(self) -> str:
        """The student's id, as `Release.student` names it."""

    async def ask(self, query: str) -> tuple[str, float]:
        """Its raw JSON answer and its confidence. Raises EngineError where it can't answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query (in normal form) names, who says so, and of which release; `reason` says why there is nothing."""

    query: str
    value: dict[str, Any] | None
    source: Source
    release: str | None
    confidence: float | None
    reason: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class _Found:
    """An answer before it is stamped with query, release and time."""

    value: dict[str, Any] | None
    source: Source
    confidence: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    """What one read of Redis gave: the release, its raw entries, and whether and why it failed."""

    release: Release | None
    raw: Sequence[bytes | str | None]
    reason: str = ""
    reached: bool = True


class Lookup:
    """Answers queries from the release being served; it takes over `redis` and closes it."""

    def __init__(
        self, redis: Redis, student: Student | None, task: type[Task], deadline: float = DEADLINE_SECONDS
    ) -> None:
        """`redis` is as `connect_async` makes it; `deadline` is in seconds, for a whole question.

        `student` is the one of the release now served, None for the cache alone.
        """
        self.redis, self.student, self.task, self.deadline = redis, student, task, deadline
        self._slots = asyncio.Semaphore(CONNECTIONS)  # redis-py errs, not waits, where its connections are all busy
        self._known: tuple[bytes | str, Release] | None = None  # the release as last read, raw and parsed
        self._flights: dict[str, asyncio.Task[_Found]] = {}  # the student's answers under way, by query

    async def __aenter__(self) -> Self:
        """Nothing is connected before the first question."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Drop the questions under way and close the connections to Redis."""
        for flight in self._flights.values():
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self.redis.aclose()

    async def get(self, query: str) -> Answer:
        """The answer for any text a shopper may have typed, within the deadline.

        Where there is none, `source` is "none" and `reason` says why: a failing Redis or student raises nothing.
        Raises InputError for a query that is empty or too long.
        """
        return (await self.get_many([query]))[0]

    async def get_many(self, queries: Sequence[str]) -> list[Answer]:
        """The answers, in order, within one deadline, all of one release. As `get` in everything else."""
        started = perf_counter()
        wanted = [_checked(query) for query in queries]
        until = asyncio.get_running_loop().time() + self.deadline
        read = await self._read(wanted)
        found = [self._hit(raw) for raw in read.raw]
        misses = list(dict.fromkeys(query for query, hit in zip(wanted, found, strict=True) if hit is None))
        answered = await self._misses(misses, read, until)
        release = read.release.release if read.release else None
        spent = round((perf_counter() - started) * 1000, 3)
        answers = []
        for query, hit in zip(wanted, found, strict=True):
            one = hit or answered[query]
            answers.append(Answer(query, one.value, one.source, release, one.confidence, one.reason, spent))
        return answers

    async def current(self) -> tuple[Release | None, str]:
        """The release that Redis serves now, or None and why. Takes as long as a lookup's read at most."""
        read = await self._read([])
        return (None, read.reason) if read.reason else (read.release, "")

    async def _read(self, queries: Sequence[str]) -> _Read:
        """The release and the entries of its generation. With Redis failing: the release last known, no entries."""
        nothing: list[bytes | str | None] = [None] * len(queries)
        known = self._known[1] if self._known else None
        try:
            async with asyncio.timeout(self.deadline * REDIS_SHARE):
                return await self._read_release(queries)
        except TimeoutError:
            reason = f"Redis gave no answer in {self.deadline * REDIS_SHARE * 1000:.0f} ms"
            return _Read(known, nothing, reason, reached=False)
        except (RedisError, OSError) as error:
            return _Read(known, nothing, f"Redis can't be reached: {error}", reached=False)
        except ValueError as error:
            return _Read(None, nothing, f"Redis holds no readable release: {error}")

    async def _read_release(self, queries: Sequence[str]) -> _Read:
        """One MGET, which is atomic, reads the release and the entries of the release last known.

        Only after a switch do the two differ: the release read then is the one to read again in.
        """
        known = self._known
        while True:
            keys = [query_key(known[1].generation, query) for query in queries] if known else []
            async with self._slots:
                raw, *entries = await self.redis.mget([RELEASE, *keys])
            if raw is None:
                return _Read(None, [None] * len(queries), "no release is published yet; run `stillhouse night`")
            if known and raw == known[0]:
                return _Read(known[1], entries)
            known = self._known = (raw, parse_release(raw))

    def _hit(self, raw: bytes | str | None) -> _Found | None:
        """What an entry says. None, so that the student is asked, for no entry and for a broken or misfit one."""
        if raw is None:
            return None
        try:
            entry: Entry = parse_entry(raw)
            value = self.task.model_validate(entry.value, strict=True).model_dump()
        except (ValueError, ValidationError):
            return None
        return _Found(value, "cache", entry.confidence)

    async def _misses(self, queries: Sequence[str], read: _Read, until: float) -> dict[str, _Found]:
        """The student's answers to what the cache has none for."""
        if refusal := self._refusal(read):
            return dict.fromkeys(queries, _Found(None, "none", reason=refusal))
        if len(queries) == 1:  # the usual case needs no task of its own
            return {queries[0]: await self._ask(queries[0], until)}
        answers = await asyncio.gather(*(self._ask(query, until) for query in queries))
        return dict(zip(queries, answers, strict=True))

    def _refusal(self, read: _Read) -> str:
        """Why the student may not be asked; "" where it may."""
        if self.student is None:
            return "; ".join(filter(None, [read.reason or "not in the cache", "no student is served"]))
        if read.release is None:
            return read.reason if read.reached else ""  # where Redis never answered, the student is all there is
        if read.release.student != self.student.name:
            return (
                f"release {read.release.release} goes with student {read.release.student}, but {self.student.name} is"
                " served; restart the server (`stillhouse serve`)"
            )
        return ""

    async def _ask(self, query: str, until: float) -> _Found:
        """Wait for the student's answer until the deadline, with everyone else who waits for the same query."""
        flight = self._flights.get(query)
        if flight is None:
            flight = self._flights[query] = asyncio.create_task(self._fly(query))
            flight.add_done_callback(lambda _: self._flights.pop(query, None))
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(flight)  # one caller's leaving does not end it for the others
        except TimeoutError:
            return _Found(None, "none", reason=f"no answer within {self.deadline * 1000:.0f} ms")

    async def _fly(self, query: str) -> _Found:
        """Ask the student once, within a deadline of its own; its answer passes what the teacher's passes."""
        assert self.student  # noqa: S101 - _refusal has seen to it
        try:
            async with asyncio.timeout(self.deadline):
                raw, confidence = await self.student.ask(query)
            answer = self.task.parse(raw)
        except TimeoutError:
            return _Found(None, "none", reason=f"the student gave no answer within {self.deadline * 1000:.0f} ms")
        except EngineError as error:
            return _Found(None, "none", reason=f"the student can't answer: {error}")
        except InputError as error:
            return _Found(None, "none", reason=f"the student's answer breaks the schema: {error}")
        if rejection := check(answer, query):
            return _Found(None, "none", reason=f"the student's answer was rejected, {rejection}")
        return _Found(answer.model_dump(), "student", confidence)


def _checked(query: str) -> str:
    """The query in normal form. Raises InputError where it is empty or too long."""
    normal = normalise(query)
    if not normal:
        raise InputError("wanted a query, got an empty one; give some text")
    if len(normal) > MAX_QUERY_CHARS:
        raise InputError(f"wanted a query of at most {MAX_QUERY_CHARS} characters, got {len(normal)}; shorten it")
    return normal
