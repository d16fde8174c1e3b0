"""Callers of the lookup service: an open loop of questions, each on a connection that is free or on a new one."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote_plus

import numpy as np
import orjson

from benchmarks.judge import NOTHING, Judged, judge
from benchmarks.told import head_query, tail_query

MOST_CONNECTIONS = 1000
DRAWN = 100_000
BATCH = 16
END_SECONDS = 2.0
TICK_SECONDS = 0.001
Row = tuple[float, float, int, int, float, int, bool, bool, int]


@dataclass(frozen=True)
class Plan:
    """`rate` questions a second: Zipf over `head` queries, a share over `tails` that only a student answers, a share batches.

    There are `connections` to begin with. Releases up to number `releases` may answer.
    """

    rate: float
    head: int
    tails: int = 2_000
    tail_share: float = 0.02
    batch_share: float = 0.02
    connections: int = 32
    releases: int = 1_000
    seed: int = 6


class Question:
    """One request: the queries it asks, its bytes, from when its time counts, how long the callers had stood still by then."""

    __slots__ = ("batch", "queries", "raw", "since", "still")

    def __init__(self, queries: list[str], batch: bool) -> None:
        self.queries, self.batch, self.since, self.still = queries, batch, 0.0, 0.0
        if batch:
            body = orjson.dumps({"queries": queries})
            head = (
                b"POST /v1/lookup HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            )
            self.raw = head % len(body) + body
        else:
            self.raw = f"GET /v1/lookup?q={quote_plus(queries[0])} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def questions(plan: Plan) -> Iterator[Question]:
    """Questions as the plan draws them, without end."""
    rng = np.random.default_rng(plan.seed)
    while True:
        places = (np.power(plan.head + 1.0, rng.random(DRAWN)) - 1).astype(int).tolist()
        tail = (rng.random(DRAWN) < plan.tail_share).tolist()
        batch = (rng.random(DRAWN) < plan.batch_share).tolist()
        for n, place in enumerate(places):
            if batch[n]:
                yield Question([head_query(one) for one in places[n : n + BATCH]], True)
            else:
                yield Question([tail_query(place % plan.tails) if tail[n] else head_query(place)], False)


class Connection(asyncio.Protocol):
    """One connection, one question at a time. `latest` is the last release it saw."""

    def __init__(self, callers: "Callers", number: int) -> None:
        self.callers, self.number, self.latest = callers, number, -1
        self.asked: Question | None = None
        self.transport: asyncio.Transport | None = None
        self._got, self._wanted = b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask at once what it was opened for."""
        self.transport = cast(asyncio.Transport, transport)
        if self.asked:
            self.transport.write(self.asked.raw)

    def ask(self, question: Question) -> None:
        """Send a question, once it is connected."""
        self.asked = question
        if self.transport:
            self.transport.write(question.raw)

    def data_received(self, data: bytes) -> None:
        """Collect an answer; when it is whole, this connection is free."""
        self._got += data
        if not self._wanted:
            head, found, _ = self._got.partition(b"\r\n\r\n")
            if not found:
                return
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            self._wanted = len(head) + 4 + int(length or 0)
        if len(self._got) >= self._wanted and (question := self.asked):
            raw, self._got, self._wanted, self.asked = self._got, b"", 0, None
            self.callers.answered(self, question, raw)

    def connection_lost(self, error: Exception | None) -> None:
        """A question under way is an error then."""
        question, self.asked, self.transport = self.asked, None, None
        self.callers.lost(self, question)


class Callers:
    """All connections, those that are free, those that wait for one, and what was seen (`rows`, as `load.SEEN`)."""

    def __init__(self, port: int, plan: Plan) -> None:
        self.port, self.plan = port, plan
        self.rows: list[Row] = []
        self._free, self._waiting = deque[Connection](), deque[Question]()
        self._opened = self._open = 0
        self._connecting = set[asyncio.Task[None]]()
        self._ticked, self._stood_still = time.monotonic(), 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until told to stop, then wait for the answers under way."""
        for _ in range(self.plan.connections):
            self._connect(None)
        await asyncio.gather(*self._connecting)
        started = self._ticked = time.monotonic()
        sent, asked = 0, questions(self.plan)
        while not stop.is_set():
            now = time.monotonic()
            self._stood_still, self._ticked = self._still(now), now
            due = int((now - started) * self.plan.rate)
            for _ in range(due - sent):
                self._send(next(asked))
            sent = due
            await asyncio.sleep(TICK_SECONDS)
        until = time.monotonic() + END_SECONDS
        while len(self._free) < self._open and time.monotonic() < until:
            self._ticked = time.monotonic()
            await asyncio.sleep(0.01)

    def _still(self, now: float) -> float:
        """Seconds that this process has stood still so far, for want of a core: its loop turns every TICK_SECONDS."""
        return self._stood_still + max(0.0, now - self._ticked - 5 * TICK_SECONDS)

    def answered(self, connection: Connection, question: Question, raw: bytes) -> None:
        """Note an answer; its connection is free for the next question."""
        now = time.monotonic()
        judged = judge(question.queries, question.batch, raw, connection.latest, self.plan.releases)
        connection.latest = max(connection.latest, judged.release)
        self._note(connection, question, now, judged)
        if self._waiting:
            connection.ask(self._waiting.popleft())
        else:
            self._free.append(connection)

    def lost(self, connection: Connection, question: Question | None) -> None:
        """A connection ended, perhaps with a question under way."""
        self._open -= 1
        if question:
            self._note(connection, question, time.monotonic(), NOTHING)
        elif connection in self._free:
            self._free.remove(connection)

    def _send(self, question: Question) -> None:
        question.since = time.monotonic()
        question.still = self._still(question.since)
        if self._free:
            self._free.popleft().ask(question)  # the one that is free for longest: all are used in turn
        elif self._open < MOST_CONNECTIONS:
            self._connect(question)
        else:
            self._waiting.append(question)

    def _connect(self, question: Question | None) -> None:
        connection = Connection(self, self._opened)
        self._opened, self._open = self._opened + 1, self._open + 1
        if question:
            connection.ask(question)
        task = asyncio.create_task(self._connected(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connected(self, connection: Connection) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", self.port)
        except OSError:
            connection.connection_lost(None)
            return
        if connection.asked is None and connection not in self._free:
            self._free.append(connection)

    def _note(self, connection: Connection, question: Question, now: float, judged: Judged) -> None:
        ms = (now - question.since - (self._still(now) - question.still)) * 1000
        head = question.queries[0].startswith("head")
        source, release, served, problem = judged
        row = (question.since, ms, source, release, served, problem, head, question.batch, connection.number % 65536)
        self.rows.append(row)
