"""Redis clients as the cache uses them, and one clear error where Redis can't be reached."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError
from redis.retry import Retry

from labels.errors import ServiceError, SettingsError

Client = TypeVar("Client")
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 30.0
CONNECTIONS = 32


def connect(url: str) -> redis.Redis:
    """A client for publishing. Connects at its first command. Raises SettingsError for a URL that is none."""
    return _from_url(redis.Redis.from_url, url, Retry(NoBackoff(), 1), ANSWER_SECONDS)


def connect_async(url: str) -> redis.asyncio.Redis:
    """A client for lookup: one retry at once, for a connection that Redis's restart broke; `Lookup` keeps the time.

    It errs where more than CONNECTIONS are wanted at once; `Lookup` lets its callers wait. Raises as `connect` does.
    """
    # No timeout of redis-py's own: that is a wait_for, which in Python 3.11 now and then swallows the cancellation by
    # which Lookup's deadline ends a question. (It costs a task a command, too.)
    return _from_url(redis.asyncio.Redis.from_url, url, AsyncRetry(NoBackoff(), 1), None)


@contextmanager
def reaching(client: redis.Redis) -> Iterator[None]:
    """Turns a failure to reach Redis inside the block into a ServiceError that says where it was wanted."""
    try:
        yield
    except (ConnectionError, TimeoutError) as error:
        raise ServiceError(
            f"wanted Redis at {address(client)}, got: {error}; start it or set cache.redis_url (REDIS_URL),"
            " then run the same command again"
        ) from error


def address(client: redis.Redis) -> str:
    """Where the client connects to, without user or password."""
    given: dict[str, Any] = client.connection_pool.connection_kwargs
    if "path" in given:
        return f"unix://{given['path']}"
    return f"redis://{given.get('host', 'localhost')}:{given.get('port', 6379)}"


def _from_url(make: Callable[..., Client], url: str, retry: object, answer_seconds: float | None) -> Client:
    try:
        return make(
            url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=answer_seconds,
            max_connections=CONNECTIONS,
            retry=retry,
        )
    except ValueError as error:
        kinds = "redis://host:6379/0, rediss://… (TLS) or unix:///path"
        raise SettingsError(f"cache.redis_url: wanted {kinds}, got something else ({error}); set it right") from error
