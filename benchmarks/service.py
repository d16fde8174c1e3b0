"""What is put under load: `stillhouse serve`, its students' stand-ins, a Redis or a Cluster that may be killed."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.online import free_port
from benchmarks.processes import Server, answers, listens, running
from cache.server import redis_binary
from labels.errors import ServiceError

STILLHOUSE = Path(sys.executable).with_name("stillhouse")
STUDENT_SECONDS = 0.02
"""How long a student takes for an answer."""
NODE_TIMEOUT_MS = 2000
SLOTS = 16384
START_SECONDS = 60.0


def service(work: Path, redis_url: str, students: str, *changes: str, cores: str = "") -> Server:
    """`stillhouse serve` on that Redis and those students; `changes` are settings, as key=value."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    told = [f"cache.redis_url={redis_url}", f"serve.student_url={students}/{{student}}", *changes]
    command: list[object] = [STILLHOUSE, "serve", "--work", work, "--port", port]
    command += [part for change in told for part in ("--set", change)]
    return Server(command, work / "serve.log", url, lambda: answers(f"{url}/readyz"), cores)


def students(work: Path) -> Server:
    """Stand-ins for the servers of all students of `benchmarks.told`."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.told", port, STUDENT_SECONDS]
    return Server(command, work / "students.log", f"http://127.0.0.1:{port}", lambda: listens(port))


def durable_redis(work: Path, *options: str) -> Server:
    """A Redis on loopback whose data survive a kill; `options` are more of its arguments."""
    port = free_port()
    folder = work / f"redis-{port}"
    folder.mkdir()
    where = ["--port", port, "--bind", "127.0.0.1", "--dir", folder]
    command = [redis_binary(), *where, "--save", "", "--appendonly", "yes"]
    url = f"redis://127.0.0.1:{port}"
    return Server([*command, *options], folder / "redis.log", url, lambda: _pongs(url))


@contextmanager
def cluster(work: Path) -> Iterator[list[Server]]:
    """The three nodes of a Redis Cluster on loopback, a third of the slots each, without replicas."""
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
    with ExitStack() as stack:
        nodes = [stack.enter_context(running(durable_redis(work, *options))) for _ in range(3)]
        clients = [stack.enter_context(closing(Redis.from_url(node.url))) for node in nodes]
        for n, client in enumerate(clients):
            client.cluster("ADDSLOTS", *range(SLOTS * n // 3, SLOTS * (n + 1) // 3))
            client.cluster("MEET", "127.0.0.1", nodes[0].url.rpartition(":")[2])
        await_whole(nodes)
        yield nodes


def await_whole(nodes: Sequence[Server]) -> None:
    """Wait until every node says that the Cluster is whole. Raises ServiceError where it is not within START_SECONDS."""
    until = time.monotonic() + START_SECONDS
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Redis.from_url(node.url))) for node in nodes]
        while not all(_knows_all(client) for client in clients):
            if time.monotonic() > until:
                wanted = f"wanted {len(nodes)} Redis nodes to be a whole Cluster within {START_SECONDS:.0f} s"
                raise ServiceError(f"{wanted}, they are not; see their logs in {nodes[0].log.parent.parent}")
            time.sleep(0.02)


def _knows_all(client: Redis) -> bool:
    told: dict[str, str] = client.cluster("INFO")
    return told["cluster_state"] == "ok" and told["cluster_known_nodes"] == "3"


def _pongs(url: str) -> bool:
    with closing(Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=None)) as client:
        try:
            return bool(client.ping())
        except RedisError:  # not there yet, or still loading its data
            return False
