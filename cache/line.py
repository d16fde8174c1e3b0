"""Reading from Redis in as little time as asyncio allows: one connection, on which questions do not wait for each other.

redis-py connects (TLS, user, password, database) and hands its transport over. Its own commands take a connection each and
pass through a stream, which costs more than half of a lookup's time.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import hiredis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, ResponseError

from cache.client import CONNECTIONS, AsyncClient, read_many

Reply: TypeAlias = Any
Stirred: TypeAlias = Callable[[], None]


class Line(asyncio.Protocol):
    """A connection to one Redis: commands are sent at once and answered in order.

    `stirred` is called where a message comes on the channel subscribed to, and where the connection is lost.
    """

    def __init__(self, connection: AbstractConnection, stirred: Stirred) -> None:
        """`connection` is connected and has nothing under way."""
        self._connection = connection  # held, for its going would close the transport
        self._stirred = stirred
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._lost: ConnectionError | None = None
        self._transport = cast(asyncio.Transport, connection._writer.transport)  # type: ignore[union-attr]
        self._transport.set_protocol(self)

    async def ask(self, seconds: float, *command: str) -> Reply:
        """Redis's answer. Raises TimeoutError after so many seconds, ConnectionError, and ResponseError for a refusal."""
        if self._lost:
            raise self._lost
        future = self._loop.create_future()
        until = self._loop.time() + seconds
        self._waiting.append((future, until))
        if self._timer is None or until < self._timer.when():
            self._time(until)
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub wants one-tuples
        return await future

    async def read_many(self, seconds: float, keys: Sequence[str]) -> list[bytes | None]:
        """The keys' values, in one round trip. Raises as `ask` does."""
        return cast(list[bytes | None], await self.ask(seconds, "MGET", *keys))

    @property
    def lost(self) -> bool:
        """Whether the connection broke."""
        return self._lost is not None

    def silent(self, seconds: float) -> bool:
        """Whether nothing at all has come for so long: where much is asked, a late reply alone says little of Redis."""
        return self._loop.time() - self._heard >= seconds

    def close(self) -> None:
        """Break the connection off; who waits gets a ConnectionError."""
        self._stirred = _nobody
        self._transport.abort()
        self.connection_lost(None)

    def data_received(self, data: bytes) -> None:
        """Hand each reply to the one that waited longest."""
        self._heard = self._loop.time()
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.PushNotification) and reply[0] != b"subscribe":
                self._stirred()
                continue
            future, _ = self._waiting.popleft()
            if future.done():  # its caller has left
                continue
            if isinstance(reply, hiredis.ReplyError):
                future.set_exception(ResponseError(str(reply)))
            else:
                future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell all who wait."""
        self._lost = self._lost or ConnectionError(str(error or "the connection was closed"))
        if self._timer:
            self._timer.cancel()
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(self._lost)
        self._waiting.clear()
        self._connection._close()  # type: ignore[no-untyped-call]
        self._stirred()

    def _time(self, until: float) -> None:
        """One timer serves all who wait: a timeout of each one's own costs as much as sending the command."""
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(until, self._expire)

    def _expire(self) -> None:
        now, self._timer = self._loop.time(), None
        for future, until in self._waiting:
            if until <= now and not future.done():
                future.set_exception(TimeoutError())
        if left := [until for future, until in self._waiting if not future.done()]:
            self._time(min(left))


class ClusterLine:
    """The same to a Cluster, whose nodes redis-py finds."""

    def __init__(self, client: redis.asyncio.RedisCluster) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(
            CONNECTIONS
        )  # redis-py errs, not waits, where a node's connections are all busy

    async def ask(self, seconds: float, *command: str) -> Reply:
        """As `Line.ask`."""
        async with asyncio.timeout(seconds):
            return await self._client.execute_command(*command)

    async def read_many(self, seconds: float, keys: Sequence[str]) -> list[bytes | None]:
        """As `Line.read_many`, in one round trip to each node."""
        async with asyncio.timeout(seconds), self._slots:
            return await read_many(self._client, keys)

    def silent(self, seconds: float) -> bool:
        """As `Line.silent`; what some node may have sent is not known here."""
        return True

    def close(self) -> None:
        """Nothing: the client keeps its connections."""


async def open_line(client: AsyncClient, seconds: float, stirred: Stirred) -> Line | ClusterLine:
    """A new line to read by, connected as the client's own are. Raises TimeoutError, and as redis-py does."""
    async with asyncio.timeout(seconds):
        if isinstance(client, redis.asyncio.RedisCluster):
            await client.initialize()
            return ClusterLine(client)
        return await _line(client.connection_pool.make_connection(), seconds, stirred)  # type: ignore[no-untyped-call]


async def open_ear(client: AsyncClient, seconds: float, channel: str, stirred: Stirred) -> Line:
    """A line of its own that a channel's messages come on, from any node of a Cluster. Raises as `open_line` does.

    (Redis cuts off a connection that subscribes and lets many replies pile up.)
    """
    async with asyncio.timeout(seconds):
        if isinstance(client, redis.asyncio.RedisCluster):
            node = random.choice(client.get_nodes())
            line = await _line(node.connection_class(**node.connection_kwargs), seconds, stirred)
        else:
            line = await _line(client.connection_pool.make_connection(), seconds, stirred)  # type: ignore[no-untyped-call]
        try:
            await line.ask(seconds, "SUBSCRIBE", channel)
        except BaseException:
            line.close()
            raise
        return line


async def _line(connection: AbstractConnection, seconds: float, stirred: Stirred) -> Line:
    """A line that speaks RESP3, whatever the URL says: it tells messages from replies."""
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    line = Line(connection, stirred)
    try:
        await line.ask(seconds, "HELLO", "3")
    except BaseException:
        line.close()
        raise
    return line


def _nobody() -> None:
    """Nobody to tell."""
