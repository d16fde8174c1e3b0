"""Memory of the labelling process, from 10 thousand to 1 million queries: retrieval, planning, labelling, storage.

The teacher is a stand-in that answers at once, one right answer for every query, so that the process at its fastest is
measured and a real engine's own memory is not. Each size runs in a process of its own; its peak is what counts.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.teacher import fresh_night, laptop, night_of, shop_queries

if TYPE_CHECKING:
    from labels.task import Task
    from teacher.engine import Completion, Prompt

SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}


class Instant:
    """Answers every prompt at once with an honest empty answer, as many tokens as the tiny teacher's."""

    model = "instant"

    def complete(self, task: "type[Task]", prompts: "Iterable[Prompt]") -> "Iterator[Completion]":
        """One completion a prompt."""
        from teacher.engine import Completion, Sample

        empty: dict[str, Any] = {name: [] if task.is_list(name) else "" for name in task.model_fields}
        text = task(**empty).to_json()
        pieces = tuple((char, -0.01) for char in text)
        for prompt in prompts:
            yield Completion(prompt.key, (Sample(text, pieces, True),), tokens_in=74, tokens_out=len(pieces))

    def prefix_cache(self) -> None:
        """It has none."""

    def close(self) -> None:
        """It holds nothing."""


def run(largest: int = 1_000_000) -> dict[str, Any]:
    """`memory_1m_vs_10k` (ratio of peaks), peak MiB and queries a second by size."""
    found = {}
    for name, size in SIZES.items():
        if size <= largest:
            with TemporaryDirectory() as work:
                _in_a_process("write", work, size)
                found[name] = _in_a_process("measure", work, size)
    last = list(found)[-1]
    return {f"memory_{last}_vs_10k": round(found[last]["peak_mib"] / found["10k"]["peak_mib"], 2), **found}


def _in_a_process(what: str, work: str, size: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", what, work, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _write(work: Path, size: int) -> dict[str, Any]:
    """A night with `size` distinct queries, waiting."""
    settings = laptop(work)
    pool = shop_queries(settings, size)
    fresh_night(settings, [f"{pool[n % len(pool)]} {n // len(pool)}" for n in range(size)])
    return {}


def _measure(work: Path, size: int) -> dict[str, Any]:
    settings = laptop(work)
    from flows.retrieve import retrieve_facts
    from teacher.label import label
    from teacher.requests import count_pending, pending, statuses

    night, peaks, start = night_of(settings), {"imports": _peak()}, time.perf_counter()
    retrieve_facts(night)
    peaks["retrieval"], planned, file = _peak(), time.perf_counter(), night.folder / "requests.parquet"
    count_pending(file, night.warehouse)
    waiting = pending(file, night.warehouse)
    done = label(night.task, waiting, Instant, settings.teacher.max_tokens, night.warehouse, night.id)
    peaks["labelling"] = _peak()
    became = statuses(file, night.warehouse, night.task, night.id)
    seconds = time.perf_counter() - start
    assert done.asked == size == sum(became[status] for status in ("accepted", "rejected", "failed"))
    return {
        "queries": size,
        "peak_mib": _peak(),
        "peak_mib_after": peaks,
        "queries_per_s": round(size / seconds),
        "retrieval_s": round(planned - start, 1),
        "labelling_s": round(seconds - (planned - start), 1),
    }


def _peak() -> int:
    """The most memory this process has held, MiB. (`ru_maxrss` would begin with its parent's.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


if __name__ == "__main__":
    do = {"write": _write, "measure": _measure}[sys.argv[1]]
    print(json.dumps(do(Path(sys.argv[2]), int(sys.argv[3]))), flush=True)
