"""Reading from Redis in the caller's own thread: what a `Line` is to a loop, for callers without one.

Connections are redis-py's own (TLS, user, password, database), made as those of a client for asyncio are; it also knows which
node of a Cluster has a key.
"""

import struct
from collections import deque
from collections.abc import Iterable, Sequence
from socket import SO_RCVTIMEO, SO_SNDTIMEO, SOL_SOCKET, socket
from time import perf_counter
from typing import Any, cast

import hiredis
import redis.asyncio
import redis.connection
from redis.asyncio import ConnectionPool
from redis.asyncio.cluster import ClusterNode
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ResponseError
from redis.retry import Retry

from cache.client import AsyncClient

KEPT = ("host", "port", "path", "db", "username", "password", "credential_provider")
"""What a connection of asyncio's and one of a thread's are told alike; and all that begins with "ssl_"."""
READ_BYTES = 65_536


class Wire:
    """A connection to one Redis, of one thread at a time, that waits `seconds` at most for what it is to read."""

    def __init__(self, where: ConnectionPool | ClusterNode, seconds: float) -> None:
        """Connect as `where` says. Raises as redis-py does."""
        told = where.connection_kwargs
        told = {name: told[name] for name in told if name in KEPT or name.startswith("ssl_")}
        kind = getattr(redis.connection, where.connection_class.__name__)
        self._connection = kind(
            **told, socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0)
        )
        self._connection.connect()
        self._socket: socket = self._connection._sock
        # The system keeps the time from here on: Python's own way is a poll before every call.
        self._socket.settimeout(None)
        for option in (SO_RCVTIMEO, SO_SNDTIMEO):
            self._socket.setsockopt(SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))
        self._reader, self._seconds = hiredis.Reader(), seconds

    def send(self, commands: Iterable[Sequence[str]]) -> None:
        """Send commands, one after the other."""
        self._socket.sendall(b"".join(map(hiredis.pack_command, commands)))  # type: ignore[arg-type]  # as in line.py

    def receive(self, count: int) -> list[Any]:
        """So many replies. Raises OSError where none comes in time, ConnectionError, and ResponseError for a refusal."""
        replies: list[Any] = []
        until = perf_counter() + self._seconds
        while len(replies) < count:
            if (reply := self._reader.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    raise ResponseError(str(reply))
                replies.append(reply)
            elif perf_counter() > until:
                raise TimeoutError
            elif data := self._socket.recv(READ_BYTES):
                self._reader.feed(data)
            else:
                raise ConnectionError("Redis closed the connection")
        return replies

    def close(self) -> None:
        """Close."""
        self._connection.disconnect()


class Wires:
    """Reads keys from where `client` does: as many connections as threads read at once, each used again and again."""

    def __init__(self, client: AsyncClient, seconds: float) -> None:
        """`seconds` is how long a read may wait for Redis."""
        self._client, self._seconds = client, seconds
        self._idle: dict[str, deque[Wire]] = {}  # by node; what a deque does at its ends is safe among threads

    def close(self) -> None:
        """Close what is not being read from."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def read_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The keys' values, in one round trip to each node. Raises one of `cache.watch.UNREACHED`."""
        if isinstance(self._client, redis.asyncio.Redis):  # asked this way round as in client.py
            ((found,),) = self._ask([("", self._client.connection_pool, [("MGET", *keys)])])
            return cast(list[bytes | None], found)
        places: dict[str, tuple[ClusterNode, list[int]]] = {}
        for place, key in enumerate(keys):
            node = cast(ClusterNode, self._client.get_node_from_key(key))  # None is for replicas
            places.setdefault(node.name, (node, []))[1].append(place)
        asked = [(name, node, [("GET", keys[place]) for place in at]) for name, (node, at) in places.items()]
        values: list[bytes | None] = [None] * len(keys)
        for (_, at), told in zip(places.values(), self._ask(asked), strict=True):
            for place, value in zip(at, told, strict=True):
                values[place] = value
        return values

    def _ask(
        self, asked: Sequence[tuple[str, ConnectionPool | ClusterNode, Sequence[Sequence[str]]]]
    ) -> list[list[Any]]:
        """The replies to each node's commands; all are sent before one is waited for."""
        wires = []
        try:
            for node, where, commands in asked:
                wires.append(self._take(node, where))
                wires[-1].send(commands)
            replies = [wire.receive(len(commands)) for wire, (_, _, commands) in zip(wires, asked, strict=True)]
        except BaseException:
            for wire in wires:
                wire.close()  # what it may still bring is nobody's
            raise
        for wire, (node, _, _) in zip(wires, asked, strict=True):
            self._idle[node].append(wire)
        return replies

    def _take(self, node: str, where: ConnectionPool | ClusterNode) -> Wire:
        """A connection that nobody else has, the last used first."""
        try:
            return self._idle.setdefault(node, deque()).pop()
        except IndexError:
            return Wire(where, self._seconds)
