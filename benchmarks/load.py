"""The callers of a service in a process of their own, and what they saw.

    python -m benchmarks.load URL PLAN OUT

They ask until standard input ends, then write a row an answer to OUT.
"""

import asyncio
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.callers import Callers, Plan

SEEN = np.dtype(
    [
        ("at", "f8"),  # when it was sent, by time.monotonic
        ("ms", "f4"),  # until its answer was here, less what the callers themselves stood still meanwhile
        ("source", "u1"),  # of judge.SOURCES
        ("release", "i4"),  # its number, -1 for none
        ("served_ms", "f4"),  # by the answer's own account
        ("problem", "u1"),  # of judge.PROBLEMS
        ("head", "?"),
        ("batch", "?"),
        ("connection", "u2"),
    ]
)
Seen = npt.NDArray[Any]
END_SECONDS = 60.0


class Load:
    """Callers under way; `seen` is filled when they stop, in the order of asking."""

    seen: Seen = np.empty(0, SEEN)


@contextmanager
def loading(url: str, plan: Plan) -> Iterator[Load]:
    """Callers of the service at `url`, as long as the block lasts."""
    load = Load()
    with TemporaryDirectory() as folder:
        out = Path(folder) / "seen.npy"
        command = [sys.executable, "-m", "benchmarks.load", url, json.dumps(asdict(plan)), str(out)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            yield load
            process.communicate(timeout=END_SECONDS)
            if process.returncode:
                raise RuntimeError(f"the callers failed with exit code {process.returncode}")
            load.seen = np.sort(np.load(out, allow_pickle=False), order="at")
        finally:
            process.kill()
            process.wait()


async def _call(url: str, plan: Plan, out: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    callers = Callers(int(url.rpartition(":")[2]), plan)
    await callers.run(stop)
    np.save(out, np.array(callers.rows, SEEN))


if __name__ == "__main__":
    import uvloop

    gc.disable()  # a collection of so many rows, none of them a cycle, would count against the service
    uvloop.run(_call(sys.argv[1], Plan(**json.loads(sys.argv[2])), Path(sys.argv[3])))
