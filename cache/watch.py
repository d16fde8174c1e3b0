"""What a process knows of Redis: the release being served, what people said, and whether Redis answers.

Questions do not read the pointer. A task reads it for them: at every message on the channel CHANGED, at every connect, and
once a second at the latest, so that a lost message costs a second.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, cast

from redis.exceptions import RedisError

from cache.answer import Found, Opener
from cache.client import AsyncClient
from cache.layout import CHANGED, PEOPLE, RELEASE, BrokenError, parse_release
from labels.normalise import NORMALISATION_VERSION
from labels.records import Release
from labels.task import Task

EVERY_SECONDS = 1.0
PATIENCE_SECONDS = 0.5  # a Redis that takes longer to say which release it serves counts as away
RETRY_SECONDS = 0.05

Raw: TypeAlias = tuple[bytes | None, dict[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class State:
    """What a question goes by from its begin to its end: the release, or why there is none, and what people said.

    `made` is when the release was, in seconds since 1970. `people` is by query in normal form.
    """

    release: Release | None
    reason: str = ""
    made: float = 0.0
    people: Mapping[str, Found] = field(default_factory=dict)


class Watch:
    """Keeps `state` as Redis has it. `away` says why Redis can't be asked, "" while it can.

    `changed` is called with the state before and the one after, whenever these differ.
    """

    def __init__(
        self,
        redis: AsyncClient,
        task: type[Task],
        changed: Callable[[State, State], None],
        refused: Callable[[str], None],
    ) -> None:
        self.state = State(None, "Redis has not been reached yet")
        self.away = ""
        self._redis, self._task, self._opener, self._task_version = redis, task, Opener(task), task.version()
        self._changed, self._refused = changed, refused
        self.reached = False  # whether Redis ever was
        self._first, self._wake = asyncio.Event(), asyncio.Event()
        self._raw: Raw | None = None  # as last read
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch; needs a running loop."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._read_always()), asyncio.create_task(self._listen_always())]

    async def aclose(self) -> None:
        """Watch no longer."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def first(self, seconds: float) -> None:
        """Wait until Redis has been reached, or found away, for the first time; so many seconds at most."""
        if not self._first.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._first.wait()

    def suspect(self, reason: str) -> None:
        """A question did not get Redis's answer: ask no more before Redis has been tried."""
        self.away = reason
        self._wake.set()

    async def _read_always(self) -> None:
        while True:
            self._wake.clear()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._read()
                self.away, self.reached = "", True
            except TimeoutError:
                self.away = f"Redis gave no answer in {PATIENCE_SECONDS * 1000:.0f} ms"
            except (RedisError, OSError) as error:
                self.away = f"Redis can't be reached: {error}"
            self._first.set()
            if self.away:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._wake.wait()

    async def _listen_always(self) -> None:
        """Wake the reader at every message, that of a subscription just made among them: nothing before it is missed."""
        while True:
            with suppress(RedisError, OSError):
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(CHANGED)
                    async for _ in channel.listen():
                        self._wake.set()
            self._wake.set()
            await asyncio.sleep(RETRY_SECONDS)

    async def _read(self) -> None:
        raw = cast(Raw, (await self._redis.get(RELEASE), await self._redis.hgetall(PEOPLE)))
        if raw == self._raw:
            return
        before = self.state
        self.state = self._state(*raw)
        self._raw = raw
        self._changed(before, self.state)

    def _state(self, raw: bytes | None, people: Mapping[bytes, bytes]) -> State:
        if raw is None:
            return State(None, "no release is published yet; run `stillhouse night`")
        try:
            release = parse_release(raw)
            made = datetime.fromisoformat(release.created).timestamp()
        except ValueError as error:
            return State(None, f"Redis holds no readable release: {error}")
        if refusal := self._unfit(release):
            return State(None, refusal)
        return State(release, made=made, people=self._said(people, made))

    def _unfit(self, release: Release) -> str:
        """Why this process can't serve the release; "" where it can."""
        wanted = (self._task.name, self._task_version, NORMALISATION_VERSION)
        for what, mine, theirs in zip(
            ("task", "task version", "normalisation"),
            wanted,
            (release.task, release.task_version, release.normalisation),
            strict=True,
        ):
            if mine != theirs:
                return (
                    f"release {release.release} is of {what} {theirs}, this server of {what} {mine}; start a server of the"
                    " same version and task as published it"
                )
        return ""

    def _said(self, raw: Mapping[bytes, bytes], made: float) -> dict[str, Found]:
        said = {}
        for query, entry in raw.items():
            try:
                said[query.decode()] = self._opener.open(entry, "cache", made)
            except (BrokenError, UnicodeDecodeError):
                self._refused("corrupted")
        return said
