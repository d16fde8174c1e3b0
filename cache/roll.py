"""A switch of release that no caller notices: every server has the new student ready before it, and the old one until after.

A server of lookups says four times a second that it is there (in the hash SERVERS) and reads which student is COMING. The
publisher announces that, waits for the servers that are there, and switches only when each has told it is ready. Times in
SERVERS are by Redis's own clock, so that machines' clocks need not agree.
"""

import asyncio
import json
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import redis
import redis.asyncio
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import RedisError

from cache.client import AsyncClient, Client, reaching
from cache.layout import COMING, RELEASE, SERVERS, parse_release
from labels.errors import PublishError, StillhouseError
from labels.records import Release

BEAT = 0.25
GONE = 5.0
"""A server that was silent for so many seconds is dead, and no publisher waits for it."""
FORGOTTEN = 60.0
COMING_SECONDS = 30
"""What a publisher that died had announced is forgotten after so long."""
RETRY_SECONDS = 60.0  # at most, between two tries to start what is served but dead
POLL = 0.1

Say = Callable[[str], None]


class Students(Protocol):
    """The students of a serving process, as flows fill it in."""

    @property
    def ready(self) -> Collection[str]:
        """Those that answer: started, warmed, not found dead since."""

    @property
    def held(self) -> Collection[str]:
        """Those not let go of, dead or alive."""

    async def hold(self, student: str) -> None:
        """Start one, or start again what has died; it is `ready` on return. Raises StillhouseError where it can't be."""

    async def let_go(self, student: str) -> None:
        """Stop one that nobody asks any more; it is out of `ready` at once, and of `held` on return."""


@dataclass(frozen=True, slots=True)
class Coming:
    """The student that a publisher wants ready, for which release. Each try of a publisher is an `attempt` of its own."""

    attempt: str
    release: str
    student: str


@dataclass(frozen=True, slots=True)
class Server:
    """What a server of lookups says of itself: when (Redis's clock), and how far it is with the attempt it last saw."""

    name: str
    time: float
    ready: tuple[str, ...]
    release: str | None
    attempt: str = ""
    state: Literal["preparing", "ready", "failed", ""] = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a student could not be made ready, during which attempt, how often in a row, and when it is tried again."""

    reason: str
    attempt: str
    times: int
    again: float


_COMING, _SERVER = TypeAdapter(Coming), TypeAdapter(Server)


class Roller:
    """Keeps the students ready that this process needs, and tells publishers; an async context manager.

    `serving` gives the release that the process answers from. A student is let go when neither that release, nor the one in
    Redis, nor a coming one has needed it for `linger` seconds: by then the last question put to it is over. While Redis
    can't be reached everything stays as it is. `say` is told what happens, `warn` what should not.
    """

    def __init__(
        self,
        client: AsyncClient,
        students: Students,
        serving: Callable[[], Awaitable[Release | None]],
        linger: float,
        say: Say,
        warn: Say,
    ) -> None:
        self._client, self._students, self._serving, self._linger = client, students, serving, linger
        self._say, self._warn = say, warn
        self._id = secrets.token_hex(8)
        self._name = f"{socket.gethostname()}, process {os.getpid()}"
        self._tasks: dict[str, asyncio.Task[None]] = {}  # at most one a student: it is held, or let go
        self._failed: dict[str, _Failure] = {}
        self._unwanted: dict[str, float] = {}  # since when
        self._beats: asyncio.Task[None] | None = None
        self._news = asyncio.Event()  # a student became ready, failed or stopped: told at once

    async def __aenter__(self) -> Self:
        """Begin; publishers see this process from its first beat on."""
        self._beats = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """No publisher waits for this process any more. What it holds is its owner's to let go."""
        tasks = [task for task in (self._beats, *self._tasks.values()) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(GONE / 2):
                await self._client.hdel(SERVERS, self._id)

    async def _run(self) -> None:
        trouble = ""
        while True:
            self._news.clear()
            try:
                await self.beat()
                trouble = ""
            except (RedisError, OSError, TimeoutError) as error:
                if not trouble:
                    trouble = f"publishers don't see this server: Redis can't be reached ({error})"
                    self._warn(trouble)
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._news.wait()

    async def beat(self) -> None:
        """Read what is wanted, see to it, say how things stand. Raises what redis-py does, or TimeoutError."""
        async with asyncio.timeout(GONE / 2):
            coming = _parsed_coming(await self._client.get(COMING))  # before RELEASE: what came is never missed by both
            raw = await self._client.get(RELEASE)
            now = await _time(self._client)
        released, serving = _parsed_release(raw), await self._serving()
        wanted = {one.student for one in (released, serving, coming) if one}
        self._hold(wanted, coming.attempt if coming else "")
        if released:  # a pointer lost or broken is no reason to stop anything
            self._let_go(wanted)
        told = Server(self._name, now, tuple(sorted(self._students.ready)), serving.release if serving else None)
        async with asyncio.timeout(GONE / 2):
            await self._client.hset(SERVERS, self._id, json.dumps(asdict(told) | self._progress(coming)))

    def _progress(self, coming: Coming | None) -> dict[str, str]:
        if coming is None:
            return {}
        if coming.student in self._students.ready:
            return {"attempt": coming.attempt, "state": "ready"}
        failure = self._failed.get(coming.student)
        if failure and failure.attempt == coming.attempt:
            return {"attempt": coming.attempt, "state": "failed", "reason": failure.reason}
        return {"attempt": coming.attempt, "state": "preparing"}

    def _hold(self, wanted: set[str], attempt: str) -> None:
        for student in wanted:
            self._unwanted.pop(student, None)
        for student in wanted - set(self._students.ready) - self._tasks.keys():
            failure = self._failed.get(student)
            if failure is None or time.monotonic() >= failure.again or failure.attempt != attempt:
                self._start(student, self._make_ready(student, attempt))
        for student in self._failed.keys() - wanted:
            del self._failed[student]

    def _let_go(self, wanted: set[str]) -> None:
        for student in set(self._students.held) - wanted - self._tasks.keys():
            since = self._unwanted.setdefault(student, time.monotonic())
            if time.monotonic() - since >= self._linger:
                self._start(student, self._stop(student))

    def _start(self, student: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[student] = asyncio.create_task(work)
        self._tasks[student].add_done_callback(lambda _: self._done(student))

    def _done(self, student: str) -> None:
        del self._tasks[student]
        self._news.set()

    async def _make_ready(self, student: str, attempt: str) -> None:
        try:
            await self._students.hold(student)
        except Exception as error:  # told to the publisher and in the log; the process goes on serving
            reason = str(error) if isinstance(error, StillhouseError) else f"{type(error).__name__}: {error}"
            times = self._failed[student].times + 1 if student in self._failed else 1
            wait = min(2.0**times, RETRY_SECONDS)
            self._failed[student] = _Failure(reason, attempt, times, time.monotonic() + wait)
            self._warn(f"student {student} is not ready: {reason}")
        else:
            self._failed.pop(student, None)
            self._say(f"student {student} is ready")

    async def _stop(self, student: str) -> None:
        del self._unwanted[student]
        try:
            await self._students.let_go(student)
        except Exception as error:
            self._warn(f"student {student} did not stop cleanly: {type(error).__name__}: {error}")
        else:
            self._say(f"student {student} is let go")


def wait_ready(client: Client, release: Release, seconds: float, say: Say) -> None:
    """Wait until every live server of lookups has the release's student ready; for publishers, right before the switch.

    Returns at once where no server is there, and where the student is the one that is served already. Raises PublishError
    where a server failed to get it ready or did not within `seconds`: it says which and why, and the coming release is taken
    back. Servers that die meanwhile are not waited for. Raises ServiceError where Redis can't be reached.
    """
    with reaching(client):
        served = _parsed_release(client.get(RELEASE))
        if not (there := live_servers(client)) or (served and served.student == release.student):
            return
        coming = Coming(secrets.token_hex(8), release.release, release.student)
        say(f"{len(there)} of lookup's processes get {release.student} ready")
        try:
            client.set(COMING, json.dumps(asdict(coming)), ex=COMING_SECONDS)
            _wait(client, coming, seconds)
        except BaseException:
            with suppress(RedisError):
                _take_back(client, coming)
            raise


def live_servers(client: Client) -> list[Server]:
    """The servers of lookups that are there now. Forgets those that were last there long ago."""
    found = client.hgetall(SERVERS)
    now = _time_now(client)
    servers = []
    for id_, raw in found.items():
        try:
            server = _SERVER.validate_json(raw)
        except ValidationError:
            server = Server(str(id_), 0.0, (), None)  # of another version, or no server's
        if now - server.time < GONE:
            servers.append(server)
        elif now - server.time > FORGOTTEN:
            client.hdel(SERVERS, id_)
    return sorted(servers, key=lambda one: one.name)


def _wait(client: Client, coming: Coming, seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while True:
        late = []
        for server in live_servers(client):
            state = server.state if server.attempt == coming.attempt else "preparing"
            if state == "failed":
                raise PublishError(
                    f"{server.name}: can't get student {coming.student} ready: {server.reason}\n"
                    f"Release {coming.release} is not served; put that right and run the same command again."
                )
            if state != "ready":
                late.append(server.name)
        if not late:
            return
        if time.monotonic() > give_up:
            raise PublishError(
                f"{'; '.join(late)}: student {coming.student} was not ready within {seconds:.0f} s"
                f" (student.start_seconds). Release {coming.release} is not served; see that server's log, then run the"
                " same command again"
            )
        held = _parsed_coming(client.get(COMING))
        if held and held.attempt != coming.attempt:
            raise PublishError(
                f"release {held.release} is being published at the same time; release {coming.release} is not served:"
                " run the same command again when that is done"
            )
        client.set(COMING, json.dumps(asdict(coming)), ex=COMING_SECONDS)
        time.sleep(POLL)


def _take_back(client: Client, coming: Coming) -> None:
    held = _parsed_coming(client.get(COMING))
    if held and held.attempt == coming.attempt:
        client.delete(COMING)


def _parsed_coming(raw: bytes | str | None) -> Coming | None:
    with suppress(ValidationError):
        return _COMING.validate_json(raw) if raw is not None else None
    return None


def _parsed_release(raw: bytes | str | None) -> Release | None:
    with suppress(ValueError):
        return parse_release(raw) if raw is not None else None
    return None


def _time_now(client: Client) -> float:
    """The clock of the Redis that holds SERVERS, in seconds."""
    if isinstance(client, redis.RedisCluster):
        seconds, micro = client.time(target_nodes=client.get_node_from_key(SERVERS))  # type: ignore[no-untyped-call]
    else:
        seconds, micro = client.time()
    return float(seconds + micro / 1e6)


async def _time(client: AsyncClient) -> float:
    """As `_time_now`."""
    if isinstance(client, redis.asyncio.RedisCluster):
        seconds, micro = await client.time(target_nodes=client.get_node_from_key(SERVERS))
    else:
        seconds, micro = await client.time()
    return float(seconds + micro / 1e6)
