"""What the head has no answer for: the student is asked, in time, and what it answers is kept in Redis for a while."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from time import time
from typing import Protocol, TypeAlias

from redis.exceptions import RedisError

from cache.answer import Found, Opener, nothing
from cache.breaker import Breaker
from cache.client import AsyncClient
from cache.flights import Flights, FullError
from cache.layout import BrokenError, entry, seal, unseal
from labels.errors import EngineError, InputError
from labels.guardrails import check
from labels.records import Release
from labels.task import Task

Flight: TypeAlias = tuple[str, str | None, str]  # the student, the release and the query
WRITE_SECONDS = 1.0
USELESS_SECONDS = 30.0  # that a process remembers an answer it turned down: asked again, a student says the same
MOST_USELESS = 10_000  # so remembered at once, 10 MB or so
LEFT_ALONE = "the student failed several times in a row; it is tried again in a moment"


class Student(Protocol):
    """The served student, as lookup needs it. `name` is the student's id in the release it belongs to."""

    @property
    def name(self) -> str:
        """The student's id, as `Release.student` names it."""

    async def ask(self, query: str) -> tuple[str, float]:
        """Its raw JSON answer and its confidence. Raises EngineError where it can't answer, InputError for a bad answer."""


class Tail:
    """Asks the students: each query once, however many wait; no more at once than they bear; none that keeps failing."""

    def __init__(
        self,
        redis: AsyncClient,
        students: Mapping[str, Student],
        task: type[Task],
        refused: Callable[[str], None],
        flights: Flights[Found],
        deadline: float,
        seconds: int,
    ) -> None:
        """`deadline` is that of a whole question, in seconds; `seconds` is how long Redis keeps an answer, 0 for not at all.

        `refused` counts what is turned down.
        """
        self.students, self.flights, self.seconds, self._deadline = students, flights, seconds, deadline
        self._redis, self._task, self._refused = redis, task, refused
        self._breakers: dict[str, Breaker] = {}
        self._landed: dict[Flight, tuple[float, Found]] = {}  # just now, and when (the loop's clock)
        self._useless: dict[Flight, Found] = {}  # why its answer was turned down, for a while
        self._writes: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Drop the questions under way."""
        await self.flights.aclose()
        for write in self._writes:
            write.cancel()
        await asyncio.gather(*self._writes, return_exceptions=True)

    def breaker(self, student: str) -> Breaker:
        """The circuit breaker of a student."""
        return self._breakers.setdefault(student, Breaker())

    async def ask_all(
        self, release: Release | None, keys: Mapping[str, str], away: str, until: float
    ) -> dict[str, Found]:
        """An answer for each query, by `until` (the loop's clock). `keys` has where in Redis it is to be kept, "" for nowhere.

        `release` is None where Redis was never reached. `away` says why Redis can't be asked, "" while it can.
        """
        student = self._student(release)
        if isinstance(student, str):
            return dict.fromkeys(keys, nothing("; ".join([away or "not in the cache", student])))
        if len(keys) == 1:  # the usual case needs no task of its own
            ((query, key),) = keys.items()
            found = {query: await self._ask(release, student, query, key, until)}
        else:
            # one batch leaves others half of the queue
            most = max(1, (self.flights.in_flight + self.flights.queue) // 2)
            asked = [self._ask(release, student, query, key, until) for query, key in islice(keys.items(), most)]
            found = dict.fromkeys(
                keys, nothing(f"more than {most} queries of this batch are new to the cache: ask fewer at once")
            )
            found |= dict(zip(keys, await asyncio.gather(*asked), strict=False))
            for _ in range(len(keys) - most):
                self._refused("queue full")
        if not away:
            return found
        return {
            query: one._replace(reason=f"{away}; {one.reason}") if one.reason else one for query, one in found.items()
        }

    def _student(self, release: Release | None) -> Student | str:
        """The student to ask, or why there is none."""
        if not self.students:
            return "no student is served"
        if release is None:
            return next(iter(self.students.values()))
        if student := self.students.get(release.student):
            return student
        return (
            f"release {release.release} goes with student {release.student}, but {', '.join(self.students)} is served;"
            " restart the server (`stillhouse serve`)"
        )

    async def _ask(self, release: Release | None, student: Student, query: str, key: str, until: float) -> Found:
        """Wait for the student's answer, with everyone else who waits for the same."""
        flight = (student.name, release.release if release else None, query)
        landed = self._landed.get(flight)
        if landed and landed[0] > until - self._deadline:  # while this question was under way, in Redis say
            return landed[1]
        if useless := self._useless.get(flight):
            return useless
        if self.breaker(student.name).blocks and not self.flights.has(flight):
            return nothing(LEFT_ALONE)
        try:
            return await self.flights.join(flight, lambda: self._fly(flight, student, key), until)
        except FullError:
            self._refused("queue full")
            most = self.flights.in_flight + self.flights.queue
            return nothing(f"the student is busy: {most} questions are under way or waiting already")
        except TimeoutError:
            return nothing(f"the student gave no answer in the {self._deadline * 1000:.0f} ms there are for all")

    async def _fly(self, flight: Flight, student: Student, key: str) -> Found:
        """Ask the student once, keep its answer for whoever comes."""
        query, loop = flight[-1], asyncio.get_running_loop()
        try:
            answer, confidence = await self._answer(student, query)
        except EngineError as error:
            return nothing(str(error))
        except InputError as error:
            self._refused("student's answer")
            useless = nothing(f"the student's answer {error}")
            if len(self._useless) < MOST_USELESS:
                self._useless[flight] = useless
                loop.call_later(USELESS_SECONDS, self._useless.pop, flight, None)
            return useless
        made = int(time())
        if key and self.seconds:
            write = loop.create_task(self._write(key, pack_answer(student.name, answer, confidence, made)))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)
        found = Found(answer.to_json().encode(), "student", confidence, made)
        self._landed[flight] = loop.time(), found
        loop.call_later(self._deadline, self._landed.pop, flight, None)
        return found

    async def _answer(self, student: Student, query: str) -> tuple[Task, float]:
        """The student's answer and its confidence; it passes what the teacher's passes.

        Raises EngineError where there is none, InputError for one that is of no use.
        """
        breaker = self.breaker(student.name)
        if not breaker.start():
            raise EngineError(LEFT_ALONE)
        try:
            raw, confidence = await student.ask(query)
        except InputError as error:
            breaker.succeeded()
            raise InputError(f"is of no use: {error}") from error
        except EngineError as error:
            breaker.failed()
            raise EngineError(f"the student can't answer: {error}") from error
        except BaseException:  # the deadline's cancellation among them
            breaker.failed()
            raise
        breaker.succeeded()
        try:
            answer = self._task.parse(raw)
        except InputError as error:
            raise InputError(f"breaks the schema: {error}") from error
        if rejection := check(answer, query):
            raise InputError(f"was rejected, {rejection}")
        return answer, confidence

    async def _write(self, key: str, packed: bytes) -> None:
        """Nobody waits for this; where it fails the student is asked again."""
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(WRITE_SECONDS):
                await self._redis.set(key, packed, ex=self.seconds)


def pack_answer(student: str, answer: Task, confidence: float, made: int) -> bytes:
    """A student's answer as it lies in Redis: who answered, for two students may share a generation, then its entry."""
    return seal(f"{student}\n{entry(answer.model_dump(), confidence, 'student', made)}".encode())


def open_answer(raw: bytes, student: str, opener: Opener) -> Found | None:
    """The reverse; None for an answer of another student. Raises BrokenError where it is none."""
    by, _, text = unseal(raw).partition(b"\n")
    if not text:
        raise BrokenError("wanted a student and its entry")
    return opener.open(text, "tail-cache", 0) if by == student.encode() else None
