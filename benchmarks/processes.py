"""The processes of the online benchmarks: started, pinned to cores, awaited, their CPU seconds read, killed."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from labels.errors import ServiceError

START_SECONDS = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def started(
    command: Sequence[object], log: Path, ready: Callable[[], bool], cores: str = ""
) -> Iterator["subprocess.Popen[bytes]"]:
    """The process once `ready` says so; killed with its children afterwards. Its output goes to `log`.

    `cores` pins it, as taskset writes them. Raises ServiceError, with the end of the log, where it ends or stays silent.
    """
    process = start(command, log, cores)
    try:
        await_ready(process, ready, log)
        yield process
    finally:
        kill(process)


def start(command: Sequence[object], log: Path, cores: str = "") -> "subprocess.Popen[bytes]":
    """Start it in a process group of its own."""
    pin = ["taskset", "-c", cores] if cores else []
    with log.open("ab") as out:
        return subprocess.Popen([*pin, *map(str, command)], stdout=out, stderr=out, start_new_session=True)


def await_ready(process: "subprocess.Popen[bytes]", ready: Callable[[], bool], log: Path) -> None:
    """Wait until `ready`. Raises ServiceError where the process ends or START_SECONDS pass before."""
    until = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            end = log.read_text(errors="replace")[-2000:]
            raise ServiceError(f"wanted {process.args!r} to answer, but it did not start:\n{end}")
        time.sleep(0.02)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """kill -9, its children with it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU seconds a process and its children (workers) have used by now, their threads and the kernel's part included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(cpu_seconds(int(child)) for child in children)


def listens(port: int) -> bool:
    """Whether somebody listens on that port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with success."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def spread_cores(count: int) -> list[str]:
    """A core for each of `count` processes, as taskset writes them: none shared where there are enough; "" where there is one."""
    cores = sorted(os.sched_getaffinity(0))
    return [str(cores[n % len(cores)]) if len(cores) > 1 else "" for n in range(count)]
