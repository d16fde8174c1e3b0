"""The processes of the online benchmarks: started, pinned to cores, awaited, their CPU seconds read, killed."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from labels.errors import ServiceError

START_SECONDS = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


def _now() -> bool:
    return True


@dataclass
class Server:
    """A process in a group of its own, its output in `log`; `url` is where it answers, `cores` pin it, as taskset writes them.

    It is there once `ready` says so.
    """

    command: Sequence[object]
    log: Path
    url: str = ""
    ready: Callable[[], bool] = _now
    cores: str = ""
    process: "subprocess.Popen[bytes]" = field(init=False)

    def start(self) -> Self:
        """Start it, again where it was killed. Raises ServiceError, with the end of its log, where it ends or stays silent."""
        pin = ["taskset", "-c", self.cores] if self.cores else []
        with self.log.open("ab") as out:
            command = [*pin, *map(str, self.command)]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        until = time.monotonic() + START_SECONDS
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                end = self.log.read_text(errors="replace")[-2000:]
                raise ServiceError(f"wanted {' '.join(command)} to answer, but it did not start:\n{end}")
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """kill -9, its children with it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def cpu_seconds(self) -> float:
        """CPU seconds that it and its children (workers) have used by now, the kernel's part included."""
        return _cpu_seconds(self.process.pid)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server, started, and killed at the end."""
    try:
        yield server.start()
    finally:
        server.kill()


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with success."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def listens(port: int) -> bool:
    """Whether somebody listens on that port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def spread_cores(count: int) -> list[str]:
    """A core for each of `count` processes, none shared where there are enough; "" for each where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    return [str(cores[n % len(cores)]) if len(cores) > 1 else "" for n in range(count)]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(_cpu_seconds(int(child)) for child in children)
