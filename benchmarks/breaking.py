"""The faults: each breaks a part of what the service stands on, and puts it right at the end of its block.

python -m benchmarks.breaking REDIS_URL NUMBER ENTRIES      # the publisher that is killed half-way
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
from redis import RedisCluster

from benchmarks.processes import Server
from benchmarks.service import await_whole
from benchmarks.told import entries_of, release_of
from cache.client import Client, connect, count_keys, read_keys
from cache.layout import RELEASE, bucket_key, manifest_key
from cache.publish import publish

HALF_WRITTEN = 900
"""The number of the release that is never finished."""
CORRUPTED = 0.5
"""The share of the buckets that is."""
SLOW_SECONDS = 1.0
KEYS_AT_ONCE = 1000


@dataclass
class Scene:
    """What the service stands on: Redis (`nodes`: one, or those of a Cluster), the students, the release being served.

    `notes` is what a fault found out besides.
    """

    work: Path
    client: Client
    nodes: Sequence[Server]
    students: Server
    student_seconds: float
    entries: int
    number: int
    notes: dict[str, object]

    @property
    def redis(self) -> Server:
        """The one that holds the pointer to the release."""
        if len(self.nodes) == 1:
            return self.nodes[0]
        holder = cast(RedisCluster, self.client).get_node_from_key(RELEASE)  # type: ignore[no-untyped-call]
        return next(node for node in self.nodes if node.url.endswith(f":{holder.port}"))

    def publish_next(self) -> None:
        """Serve the next release, of the same student: no fault here is about rolling one."""
        self.number += 4
        publish(self.client, entries_of(self.number, self.entries), release_of(self.number, self.entries))


Fault = Callable[[Scene], AbstractContextManager[None]]


@contextmanager
def nothing(scene: Scene) -> Iterator[None]:
    """No fault: what the machine itself does to the figures."""
    yield


@contextmanager
def redis_killed(scene: Scene) -> Iterator[None]:
    """kill -9, then started again on its append-only file."""
    scene.redis.kill()
    yield
    scene.redis.start()


@contextmanager
def node_lost(scene: Scene) -> Iterator[None]:
    """kill -9 of a Cluster's node, not the one with the release's key; put right when the Cluster says that it is whole."""
    with _node_killed(scene, next(node for node in scene.nodes if node is not scene.redis)):
        yield


@contextmanager
def pointer_node_lost(scene: Scene) -> Iterator[None]:
    """The same of the node with the release's key."""
    with _node_killed(scene, scene.redis):
        yield


@contextmanager
def _node_killed(scene: Scene, node: Server) -> Iterator[None]:
    node.kill()
    yield
    node.start()
    await_whole(scene.nodes)


@contextmanager
def redis_frozen(scene: Scene) -> Iterator[None]:
    """SIGSTOP: its socket takes connections and questions, and gives no answer."""
    os.kill(scene.redis.process.pid, signal.SIGSTOP)
    yield
    os.kill(scene.redis.process.pid, signal.SIGCONT)


@contextmanager
def student_killed(scene: Scene) -> Iterator[None]:
    """kill -9, then started again."""
    scene.students.kill()
    yield
    scene.students.start()


@contextmanager
def student_slow(scene: Scene) -> Iterator[None]:
    """It answers, after the deadline."""
    httpx.get(f"{scene.students.url}/slow/{SLOW_SECONDS}", trust_env=False).raise_for_status()
    yield
    httpx.get(f"{scene.students.url}/slow/{scene.student_seconds}", trust_env=False).raise_for_status()


@contextmanager
def both_killed(scene: Scene) -> Iterator[None]:
    """Redis and the student, at once."""
    with redis_killed(scene), student_killed(scene):
        yield


@contextmanager
def pointer_missing(scene: Scene) -> Iterator[None]:
    """DEL of the release's key, and its value put back."""
    with _pointer_kept(scene):
        scene.client.delete(RELEASE)
        yield


@contextmanager
def pointer_broken(scene: Scene) -> Iterator[None]:
    """Random bytes in the release's key, and its value put back."""
    with _pointer_kept(scene):
        scene.client.set(RELEASE, random.randbytes(300))
        yield


@contextmanager
def _pointer_kept(scene: Scene) -> Iterator[None]:
    [raw] = read_keys(scene.client, [RELEASE])
    assert raw
    yield
    scene.client.set(RELEASE, raw)


@contextmanager
def half_written(scene: Scene) -> Iterator[None]:
    """A publisher killed with -9 amid its buckets; the next publish serves its own release and removes what lies about."""
    release = release_of(HALF_WRITTEN, scene.entries)
    keys = [bucket_key(release.generation, bucket) for bucket in range(release.buckets)]
    stop = random.randrange(1, len(keys))
    command = [sys.executable, "-m", "benchmarks.breaking", scene.redis.url, HALF_WRITTEN, scene.entries]
    publisher = Server(command, scene.work / "publisher.log").start()
    while not scene.client.exists(keys[stop]):
        if publisher.process.poll() is not None:
            raise RuntimeError(f"the publisher ended by itself: {publisher.log.read_text()[-2000:]}")
        time.sleep(0.0005)
    publisher.kill()
    there = _count(scene.client, keys)
    if there == len(keys) or scene.client.exists(manifest_key(release.generation)):
        raise RuntimeError("the publisher was quicker than its killer; give it more entries")
    yield
    scene.publish_next()
    scene.notes |= {"written_keys": there, "wanted_keys": len(keys), "left_keys": _count(scene.client, keys)}


@contextmanager
def values_corrupted(scene: Scene) -> Iterator[None]:
    """Half the buckets overwritten, cut short, with a bit flipped, or another kind of value; then the next release."""
    release = release_of(scene.number, scene.entries)
    for bucket in range(release.buckets):
        if random.random() < CORRUPTED:
            _corrupt(scene.client, bucket_key(release.generation, bucket))
    yield
    scene.publish_next()


def _corrupt(client: Client, key: str) -> None:
    [held] = read_keys(client, [key])
    raw = bytearray(held or b"")
    how = random.randrange(4)
    if how == 0:
        raw = bytearray(random.randbytes(len(raw)))
    elif how == 1:
        del raw[random.randrange(len(raw)) :]
    elif how == 2:
        raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
    else:
        client.delete(key)
        client.rpush(key, "no string")
        return
    client.set(key, bytes(raw))


def _count(client: Client, keys: list[str]) -> int:
    return sum(count_keys(client, keys[n : n + KEYS_AT_ONCE]) for n in range(0, len(keys), KEYS_AT_ONCE))


def _publish(url: str, number: int, entries: int) -> None:
    with closing(connect(url)) as client:
        publish(client, entries_of(number, entries), release_of(number, entries))


if __name__ == "__main__":
    _publish(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
