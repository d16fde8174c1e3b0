"""A review tool as a process on loopback: how long until a reviewer has a task, how much memory, how long a step."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import psutil

from benchmarks.peers import QUIET

MIB = 2**20
POLL_SECONDS = 0.01
GRACE_SECONDS = 20.0
LIMIT_SECONDS = 240.0


@dataclass(frozen=True)
class Draft:
    """What a reviewer is asked about: a query, and the teacher's answer in words."""

    query: str
    answer: str


@dataclass(frozen=True)
class Round:
    """One start of a tool: seconds to the first task, MiB then, seconds to load the tasks, seconds of each step.

    `load` is None where loading is a part of the start; `plain` are steps by forms alone, where a tool has such.
    """

    start: float
    memory: float
    load: float | None
    steps: Sequence[float]
    plain: Sequence[float] = ()


class ReviewTool(Protocol):
    """A tool that people verify labels with. What goes wrong with it is a RuntimeError, OSError or httpx error."""

    name: str

    def first(self, drafts: Sequence[Draft]) -> float:
        """Install it, fill it, start it for the first time; the seconds of that start."""

    def round(self, drafts: Sequence[Draft], steps: int) -> Round:
        """Start it again and work through so many steps."""


@dataclass(frozen=True)
class Running:
    """A started tool: its process, and the seconds from its start to a reviewer's first task."""

    pid: int
    seconds: float

    def memory(self) -> float:
        """Resident memory (MiB) of the process and all below it."""
        process = psutil.Process(self.pid)
        return float(sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))) / MIB


@contextmanager
def running(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], served: Callable[[], bool]
) -> Iterator[Running]:
    """Start a tool in `folder` and stop it at the end. `served` fetches the first task, and says whether it came."""
    log = folder / "tool.log"
    with log.open("ab") as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env={**os.environ, **QUIET, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(process, served, start + LIMIT_SECONDS, log)
            yield Running(process.pid, time.perf_counter() - start)
        finally:
            _stop(process)


def client(port: int, base: httpx.Client | None = None) -> httpx.Client:
    """A reviewer's browser on a loopback port; with `base`'s cookies."""
    cookies = base.cookies if base else None
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", cookies=cookies, timeout=LIMIT_SECONDS, trust_env=False)


def well(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is no error; else RuntimeError with its first words."""
    if answer.is_error:
        raise RuntimeError(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:300]}")
    return answer


def say(words: str) -> None:
    """A line for who waits."""
    sys.stderr.write(words + "\n")


def _wait(process: subprocess.Popen[bytes], served: Callable[[], bool], give_up: float, log: Path) -> None:
    while not _is_served(served):
        if process.poll() is not None or time.perf_counter() > give_up:
            words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"gave no task ({process.poll()}):\n{words}")
        time.sleep(POLL_SECONDS)


def _is_served(served: Callable[[], bool]) -> bool:
    try:
        return served()
    except httpx.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the tool and what it started: politely, then for certain."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, ending)
            process.wait(GRACE_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
