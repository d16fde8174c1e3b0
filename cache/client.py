"""Redis clients as the cache uses them, standalone or of a Cluster, and one clear error where Redis can't be reached.

A URL may carry an ACL user and password (`redis://user:password@host`), which no message of ours repeats, and TLS
(`rediss://host?ssl_ca_certs=/path`, and whatever else redis-py takes in a URL's query).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    NoPermissionError,
    RedisClusterException,
    SlotNotCoveredError,
    TimeoutError,
)
from redis.retry import Retry

from labels.errors import ServiceError, SettingsError

Client: TypeAlias = redis.Redis | redis.RedisCluster
AsyncClient: TypeAlias = redis.asyncio.Redis | redis.asyncio.RedisCluster
Made = TypeVar("Made")

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 30.0
CONNECTIONS = 32
UNREACHED = (ConnectionError, TimeoutError, RedisClusterException, SlotNotCoveredError)
"""What a client raises where Redis can't be reached; AuthenticationError is a ConnectionError."""


def connect(url: str, cluster: bool = False) -> Client:
    """A client for publishing; `cluster`: the URL is that of any node of a Cluster, which is asked for the others at once.

    Standalone it connects at its first command. Raises SettingsError for a URL that is none, and ServiceError where the
    Cluster can't be reached.
    """
    if not cluster:
        return _from_url(redis.Redis.from_url, url, retry=Retry(NoBackoff(), 1), socket_timeout=ANSWER_SECONDS)
    try:
        return _from_url(redis.RedisCluster.from_url, url, socket_timeout=ANSWER_SECONDS)
    except UNREACHED as error:
        raise _unreached(_shown(url), error) from error


def connect_async(url: str, cluster: bool = False) -> AsyncClient:
    """A client for lookup: one retry at once, for a connection that Redis's restart broke; `Lookup` keeps the time.

    It errs where more than CONNECTIONS are wanted at once; `Lookup` lets its callers wait. It connects at its first
    command. Raises SettingsError for a URL that is none.
    """
    # No timeout of redis-py's own: that is a wait_for, which in Python 3.11 now and then swallows the cancellation by
    # which Lookup's deadline ends a question. (It costs a task a command, too.)
    make = redis.asyncio.RedisCluster.from_url if cluster else redis.asyncio.Redis.from_url
    return _from_url(cast(Callable[..., AsyncClient], make), url, retry=AsyncRetry(NoBackoff(), 1), socket_timeout=None)


@contextmanager
def reaching(client: Client) -> Iterator[None]:
    """Turns a failure to reach Redis inside the block, or to be let in, into a ServiceError that says where."""
    try:
        yield
    except (*UNREACHED, NoPermissionError) as error:
        raise _unreached(address(client), error) from error


def address(client: Client) -> str:
    """Where the client connects to, without user or password."""
    if isinstance(client, redis.RedisCluster):
        return "redis://" + ",".join(sorted(node.name for node in client.nodes_manager.nodes_cache.values()))
    given: dict[str, Any] = client.connection_pool.connection_kwargs
    if "path" in given:
        return f"unix://{given['path']}"
    return f"redis://{given.get('host', 'localhost')}:{given.get('port', 6379)}"


async def read_many(client: AsyncClient, keys: Sequence[str]) -> list[bytes | None]:
    """The keys' values in one round trip: of a Cluster one to each node that holds some of them, at the same time."""
    # Asked this way round, since RedisCluster is a Protocol: isinstance takes 2 µs to say that a client is none.
    if isinstance(client, redis.asyncio.Redis):
        return cast(list[bytes | None], await client.execute_command("MGET", *keys))  # type: ignore[no-untyped-call]
    if len({key_slot(key.encode()) for key in keys}) == 1:
        return cast(list[bytes | None], await client.execute_command("MGET", *keys))
    return cast(list[bytes | None], await client.mget_nonatomic(keys))


def read_keys(client: Client, keys: Sequence[str]) -> list[bytes | None]:
    """The keys' values."""
    if isinstance(client, redis.RedisCluster):
        return cast(list[bytes | None], pipeline_of(client, [("GET", key) for key in keys]))
    return cast(list[bytes | None], client.mget(keys) if keys else [])


def write_keys(client: Client, rows: Mapping[str, bytes]) -> None:
    """Set the keys, for ever."""
    if isinstance(client, redis.RedisCluster):
        pipeline_of(client, [("SET", key, value) for key, value in rows.items()])
    elif rows:
        client.mset(rows)


def count_keys(client: Client, keys: Sequence[str]) -> int:
    """How many of the keys are there."""
    if isinstance(client, redis.RedisCluster):
        return sum(pipeline_of(client, [("EXISTS", key) for key in keys]))
    return client.exists(*keys) if keys else 0


def unlink_keys(client: Client, keys: Sequence[str]) -> None:
    """Remove the keys; Redis gives their memory back beside its other work."""
    if isinstance(client, redis.RedisCluster):
        pipeline_of(client, [("UNLINK", key) for key in keys])
    elif keys:
        client.unlink(*keys)


def pipeline_of(client: Client, commands: Iterable[tuple[str | bytes, ...]]) -> list[Any]:
    """One answer a command, each of one key; every node gets its own in one go."""
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return cast(list[Any], pipe.execute())


def _from_url(make: Callable[..., Made], url: str, **options: object) -> Made:
    try:
        # A Cluster's client opens connections as it is made: this one, of one Redis, finds what is wrong without.
        redis.ConnectionPool.from_url(url).make_connection()
        if url.startswith("unix:") and not make.__qualname__.startswith("Redis."):
            raise ValueError("no Cluster is reached by a socket file")
        return make(url, socket_connect_timeout=CONNECT_SECONDS, max_connections=CONNECTIONS, **options)
    except (ValueError, TypeError):
        # what they say may repeat a part of the password: that is where an unescaped "/" or "#" ends the host
        raise SettingsError(
            "cache.redis_url: wanted redis://user:password@host:6379/0, rediss://… (TLS, with ?ssl_ca_certs=/path) or"
            " unix:///path (standalone only), got something else or an option that redis-py does not know; set it right"
            " (in a password write / as %2F, # as %23, @ as %40)"
        ) from None


def _shown(url: str) -> str:
    """The URL without user, password and options."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _unreached(where: str, error: Exception) -> ServiceError:
    setting = "cache.redis_url (STILLHOUSE_CACHE__REDIS_URL)"
    todo = f"start it or set {setting}, then run the same command again"
    cause = error.__cause__ if isinstance(error, RedisClusterException) else error  # what a node said is behind it
    if isinstance(cause, AuthenticationError | NoPermissionError):
        todo = f"set the user and password in {setting}, or allow the user what docs/redis.md lists"
    elif "luster mode is not enabled" in str(error) or "luster support disabled" in str(error):
        todo = "that Redis stands alone: leave out cache.cluster"
    return ServiceError(f"wanted Redis at {where}, got: {error}; {todo}")
