"""The service under load: `stillhouse serve` in a process of its own, with a stand-in for the students' servers."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.online import free_port
from benchmarks.processes import answers, listens, started

STILLHOUSE = Path(sys.executable).with_name("stillhouse")
STUDENT_SECONDS = 0.02
"""How long a student takes for an answer."""


@dataclass
class Server:
    """A process that answers on a port of loopback."""

    port: int
    command: list[object]
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def students_served(work: Path) -> Iterator[Server]:
    """Stand-ins for the servers of all students of `benchmarks.told`."""
    port, log = free_port(), work / "students.log"
    command: list[object] = [sys.executable, "-m", "benchmarks.told", port, STUDENT_SECONDS]
    with started(command, log, lambda: listens(port)) as process:
        yield Server(port, command, log, process)


@contextmanager
def serving(work: Path, redis_url: str, students: str, *changes: str, cores: str = "") -> Iterator[Server]:
    """`stillhouse serve` on that Redis and those students once it is ready; `changes` are settings, as key=value."""
    port, log = free_port(), work / "serve.log"
    told = [f"cache.redis_url={redis_url}", f"serve.student_url={students}/{{student}}", *changes]
    command: list[object] = [STILLHOUSE, "serve", "--work", work, "--port", port]
    command += [part for change in told for part in ("--set", change)]
    with started(command, log, lambda: answers(f"http://127.0.0.1:{port}/readyz"), cores) as process:
        yield Server(port, command, log, process)
