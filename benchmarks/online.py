"""What the online benchmarks share: invented entries, Zipf traffic, a private Redis, a student that answers by rote."""

import asyncio
import os
import random
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import numpy as np
from redis import Redis
from redis.exceptions import RedisError

from benchmarks.ingest import WORDS
from cache.layout import bucket_count, entry
from cache.server import redis_binary
from labels.normalise import NORMALISATION_VERSION
from labels.records import Release
from labels.semantic_roles import SemanticRoles

TASK = SemanticRoles
ENTRIES = 1_000_000
STUDENT = "student-1"
START_SECONDS = 30.0
SEED = 6


def make_entries(count: int = ENTRIES, seed: int = SEED) -> list[tuple[str, str]]:
    """`count` distinct queries in normal form with what the cache holds for each, the most frequent first.

    A query names a product, mostly a brand, and up to three qualities: 23 characters and 42 bytes of JSON on average.
    """
    rng = random.Random(seed)
    words = [
        one + other[: 2 * rng.randrange(3)] for one, other in zip(WORDS, rng.sample(WORDS, len(WORDS)), strict=True)
    ]
    made: dict[str, str] = {}
    while len(made) < count:
        product, second, brand, *qualities = rng.choices(words, k=5)
        drawn = rng.randrange(1000)  # stands for all that is rarer than a word
        product = f"{product} {second}" if drawn % 2 else product
        brand = "" if drawn % 10 < 3 else brand
        rare = [str(drawn)] if drawn < 300 else ["café"] if drawn < 330 else []
        qualities = qualities[: drawn % 3] + rare
        query = " ".join(filter(None, [*qualities, brand, product]))
        value = {"product": product, "brand": brand, "attributes": qualities}
        made[query] = entry(value, 0.7 + drawn * 0.0003, "teacher")
    return list(made.items())


def traffic(queries: Sequence[str], asked: int, seed: int = SEED) -> list[str]:
    """`asked` queries, each as frequent as one over its place in `queries` (Zipf's law with exponent 1)."""
    drawn = np.random.default_rng(seed).random(asked)
    places = (np.power(float(len(queries) + 1), drawn) - 1).astype(np.int64)
    return [queries[place] for place in places.tolist()]


def release_of(entries: int, name: str = "r1", student: str = STUDENT) -> Release:
    """A release of so many entries, in a generation of its own."""
    return Release(
        release=name,
        generation=f"g-{name}",
        student=student,
        task=TASK.name,
        night="benchmark",
        task_version=TASK.version(),
        entries=entries,
        buckets=bucket_count(entries),
        normalisation=NORMALISATION_VERSION,
    )


@dataclass
class RoteStudent:
    """Answers any query with its words, after `seconds`, and counts how often it was asked."""

    name: str = STUDENT
    seconds: float = 0.02
    asked: int = 0

    async def ask(self, query: str) -> tuple[str, float]:
        """The query as the product, surely."""
        self.asked += 1
        await asyncio.sleep(self.seconds)
        return TASK(product=query, brand="", attributes=[]).to_json(), 0.9

    async def aclose(self) -> None:
        """It holds nothing."""


def free_port() -> int:
    """A port of loopback that nobody listened on a moment ago."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def private_redis(*options: str) -> Iterator[str]:
    """The URL of an empty Redis on loopback that keeps nothing on disk; `options` are more of its arguments."""
    port = free_port()
    with TemporaryDirectory(prefix="stillhouse-redis-") as folder:
        listen = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command = [str(redis_binary()), *listen, "--save", "", "--appendonly", "no", *options]
        log = Path(folder) / "redis.log"
        with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=os.environ) as server:
            try:
                _wait(port, server, log)
                yield f"redis://127.0.0.1:{port}"
            finally:
                server.kill()


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    until = monotonic() + START_SECONDS
    with closing(Redis.from_url(f"redis://127.0.0.1:{port}", retry=None)) as client:
        while True:
            try:
                client.ping()
                return
            except RedisError:
                if server.poll() is not None or monotonic() > until:
                    raise RuntimeError(f"redis-server did not start:\n{log.read_text()[-2000:]}") from None
                sleep(0.02)
