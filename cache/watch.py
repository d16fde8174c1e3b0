"""What a process knows of Redis: the release being served, what people said, and whether Redis answers.

Questions do not read the pointer. A task reads it for them: at every message on the channel CHANGED, at every connect, and
once a second at the latest, so that a lost message costs a second.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import cast

from redis.exceptions import ConnectionError, RedisError

from cache.answer import Found, Opener
from cache.client import AsyncClient
from cache.layout import CHANGED, PEOPLE, RELEASE, BrokenError, parse_release
from cache.line import ClusterLine, Line, open_ear, open_line
from labels.normalise import NORMALISATION_VERSION
from labels.records import Release
from labels.task import Task

EVERY_SECONDS = 1.0
PATIENCE_SECONDS = 1.0  # a Redis that takes longer to say which release it serves counts as away
RETRY_SECONDS = 0.05
MANY_PEOPLE = 1_000  # answers that people gave: more are read, without being told, every
PEOPLE_SECONDS = 15.0  # only, for a message may be lost on its way through a Cluster
UNPUBLISHED = "no release is published yet; run `stillhouse night`"
UNREACHED = (RedisError, OSError, TimeoutError)
"""What reading raises where Redis does not answer, or refuses to."""


@dataclass(frozen=True, slots=True)
class State:
    """What a question goes by from its begin to its end: the release and what people said.

    `reason` says why there is no release, or why it is one that Redis no longer names. `made` is when the release was, in
    seconds since 1970. `people` is by query in normal form.
    """

    release: Release | None
    reason: str = ""
    made: int = 0
    people: Mapping[str, Found] = field(default_factory=dict)


class Watch:
    """Keeps `state` as Redis has it. `away` says why Redis can't be asked, "" while it can; `reached`, whether it ever was.

    `changed` is called with the state before and the one after, whenever these differ; `refused` with what was turned
    down, as the journal counts it.
    """

    def __init__(
        self,
        redis: AsyncClient,
        task: type[Task],
        changed: Callable[[State, State], None],
        refused: Callable[[str], None],
    ) -> None:
        self.state = State(None, "Redis has not been reached yet")
        self.away, self.reached = "Redis has not been reached yet", False
        self._redis, self._task, self._opener, self._task_version = redis, task, Opener(task), task.version()
        self._changed, self._refused = changed, refused
        self._first, self._wake = asyncio.Event(), asyncio.Event()
        self._line: Line | ClusterLine | None = None
        self._ear: Line | None = None
        self._told, self._people_due = (
            False,
            0.0,
        )  # whether somebody told of a change; when to read people's answers anyway
        self._release: bytes | None = None
        self._people: dict[bytes, bytes] = {}  # both as last read
        self._opened: dict[bytes, tuple[bytes, Found]] = {}  # what people said, as it lies in Redis and opened
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch; needs a running loop."""
        self._watching = self._watching or asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Watch no longer."""
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        self._hang_up()

    async def first(self, seconds: float) -> None:
        """Wait until Redis has been reached, or found away, for the first time; so many seconds at most."""
        if not self._first.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._first.wait()

    async def read_many(self, seconds: float, keys: Sequence[str]) -> list[bytes | None]:
        """The keys' values. Raises one of UNREACHED; nobody asks again before Redis has been tried.

        (That is for one Redis: of a Cluster the other nodes may well answer.)
        """
        line = self._line
        if line is None:
            raise ConnectionError(self.away)
        try:
            return await line.read_many(seconds, keys)
        except UNREACHED as error:
            if line is self._line and isinstance(line, Line) and not self._slow(error, seconds):
                self.away = _reason(error, seconds)
                self._wake.set()
            raise

    def _slow(self, error: Exception, seconds: float) -> bool:
        """Whether Redis did answer others meanwhile."""
        return isinstance(error, TimeoutError) and self._line is not None and not self._line.silent(seconds)

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._refresh(await self._connect())
            except Exception as error:  # whatever it is, try again: without a watch a stale release would be served
                self._told = True  # what it was told of has not been read yet
                if not self._slow(error, PATIENCE_SECONDS):
                    self._hang_up()
                    self.away = _reason(error, PATIENCE_SECONDS)
                    self._first.set()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.away, self.reached = "", True
            self._first.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._wake.wait()

    async def _connect(self) -> Line | ClusterLine:
        """What to read by, and an ear for changes, which has heard of one when it is new: there may have been some before."""
        if self._line is None:
            self._line = await open_line(self._redis, PATIENCE_SECONDS, self._wake.set)
        if self._ear is None or self._ear.lost:
            self._ear = await open_ear(self._redis, PATIENCE_SECONDS, CHANGED, self._hear)
            self._told = True
        return self._line

    def _hear(self) -> None:
        self._told = True
        self._wake.set()

    def _hang_up(self) -> None:
        for line in (self._line, self._ear):
            if line:
                line.close()
        self._line = self._ear = None

    async def _refresh(self, line: Line | ClusterLine) -> None:
        """Read what there is to know; people's answers, where they are many, only when told that something changed."""
        told, self._told = self._told, False
        release = cast(bytes | None, await line.ask(PATIENCE_SECONDS, "GET", RELEASE))
        people = self._people
        if told or len(people) < MANY_PEOPLE or monotonic() > self._people_due:
            people = cast(dict[bytes, bytes], await line.ask(PATIENCE_SECONDS, "HGETALL", PEOPLE))
            self._people_due = monotonic() + PEOPLE_SECONDS
        if self.reached and release == self._release and people == self._people:
            return
        before, self.state = self.state, self._state(release, people, self.state)
        self._release, self._people = release, people
        self._changed(before, self.state)

    def _state(self, raw: bytes | None, people: Mapping[bytes, bytes], before: State) -> State:
        """What Redis tells. Where it has lost the release, the one before stays: nobody ends a service by losing a key."""
        try:
            release = parse_release(raw) if raw is not None else None
            made = int(datetime.fromisoformat(release.created).timestamp()) if release else before.made
            lost = "Redis has lost its release; publish anew: `stillhouse night`" if before.release else UNPUBLISHED
        except ValueError as error:
            release, made, lost = None, before.made, f"Redis holds no readable release: {error}"
        if release is None:
            said = self._said(people, made) if before.release else {}
            return State(before.release, lost, made, said or before.people)
        if refusal := self._unfit(release):
            return State(None, refusal)
        return State(release, made=made, people=self._said(people, made))

    def _unfit(self, release: Release) -> str:
        """Why this process can't serve the release; "" where it can."""
        facts = (
            ("task", release.task, self._task.name),
            ("task version", release.task_version, self._task_version),
            ("normalisation", release.normalisation, NORMALISATION_VERSION),
        )
        for what, theirs, ours in facts:
            if theirs != ours:
                return (
                    f"release {release.release} is of {what} {theirs}, this process of {what} {ours}; start it with the"
                    " task and version of Stillhouse that published the release"
                )
        return ""

    def _said(self, people: Mapping[bytes, bytes], made: int) -> dict[str, Found]:
        """What people said, opened; what was said before is not opened again."""
        opened = {}
        for query, entry in people.items():
            known = self._opened.get(query)
            if known and known[0] == entry:
                opened[query] = known
                continue
            try:
                opened[query] = entry, self._opener.open(entry, "cache", made)
            except BrokenError:
                self._refused("corrupted")
        self._opened = opened
        return {query.decode(errors="replace"): found for query, (_, found) in opened.items()}


def _reason(error: Exception, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"Redis gave no answer in {seconds * 1000:.0f} ms"
    return f"Redis can't be reached: {error or type(error).__name__}"
