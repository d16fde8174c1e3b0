"""kill -9 at random moments of a labelling run: nothing lost, nothing twice, at most a chunk asked again.

A real vLLM server runs all the time. A labelling process (retrieval, planning, labelling by URL, one warehouse) is
started again and again, and killed at a random moment of the time that labelling some chunks takes, until all is
labelled; then the next queries, in a new warehouse. The process writes down each key as its engine takes it. After every
kill each committed chunk is read, and what was asked is compared with what became durable.
"""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.teacher import asked_of_server, fresh_night, laptop, night_of, served, shop_queries

if TYPE_CHECKING:
    from flows.settings import Settings
    from labels.task import Task
    from teacher.engine import Completion, Engine, Prompt

SEED = 3
CONCURRENCY = 256
QUERIES = 4000
"""A set's size."""
CHUNKS = 2
"""Kills come between 0 and the seconds that a process needs, undisturbed, to label so many chunks."""
ASKED = "asked.txt"


@dataclass
class Seen:
    """What all sets showed. By process: `lost`, queries asked without a durable label; `again`, queries asked before."""

    killed: int = 0
    sets: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    queries: int = 0
    chunks: int = 0
    duplicates: int = 0
    unreadable: int = 0
    asked: int = 0
    lost: list[int] = field(default_factory=list)
    again: list[int] = field(default_factory=list)


def run(kills: int = 200) -> dict[str, Any]:
    """What so many kills did. `asked_twice_max` is the most queries any process asked that had been asked before."""
    from teacher.label import AT_RISK, COMMIT

    seen, draw = Seen(), random.Random(SEED)
    with TemporaryDirectory() as work:
        settings = laptop(Path(work))
        pool = shop_queries(settings, 1_000_000)
        with served(settings, Path(work)) as url:
            longest = _undisturbed(Path(work) / "first", url, pool[: CHUNKS * COMMIT])
            before, start = asked_of_server(url), time.monotonic()
            while seen.killed < kills:
                first = seen.sets * QUERIES % (len(pool) - QUERIES)
                _one_set(
                    _settings(Path(work) / f"set{seen.sets}", url),
                    pool[first : first + QUERIES],
                    kills,
                    longest,
                    draw,
                    seen,
                )
            answered, seconds = asked_of_server(url) - before, time.monotonic() - start
    lost, again = max(seen.lost, default=0), max(seen.again, default=0)
    same = seen.queries == sum(seen.statuses.values())
    return {
        "holds": same and not seen.duplicates and not seen.unreadable and max(lost, again) <= AT_RISK,
        "killed": seen.killed,
        "duplicates": seen.duplicates,
        "asked_twice_max": again,
        "asked_twice_allowed": AT_RISK,
        "lost_by_a_kill_max": lost,
        "lost_by_a_kill_mean": round(sum(seen.lost) / len(seen.lost), 1),
        "killed_before_asking": seen.lost.count(0),
        "in": seen.queries,
        "labelled": seen.statuses["accepted"],
        "rejected": seen.statuses["rejected"],
        "failed": seen.statuses["failed"],
        "chunks": seen.chunks,
        "chunks_unreadable": seen.unreadable,
        "sets": seen.sets,
        "asked": seen.asked,
        "answered_by_server": answered,
        "killed_within_s": round(longest, 1),
        "seconds": round(seconds),
    }


def _one_set(
    settings: "Settings", queries: list[str], kills: int, longest: float, draw: random.Random, seen: Seen
) -> None:
    """Label one set, killing as long as there are kills left."""
    night = fresh_night(settings, queries)
    asked_before, durable = set[str](), Counter[str]()
    done = False
    while not done:
        (settings.folder / ASKED).write_text("")
        worker = _start(settings)
        done = _ended(worker, draw.uniform(0, longest) if seen.killed < kills else None)
        asked = set((settings.folder / ASKED).read_text().split())
        durable = _durable(night.warehouse.folder / "labels", seen)
        seen.duplicates += sum(count - 1 for count in durable.values())
        seen.again.append(len(asked & asked_before))
        seen.asked += len(asked)
        asked_before |= asked
        if not done:
            seen.killed += 1
            seen.lost.append(len(asked - durable.keys()))
            sys.stderr.write(f"kill {seen.killed}: asked {len(asked)}, lost {seen.lost[-1]}, {len(durable)} durable\n")
    seen.sets += 1
    seen.queries += len(queries)
    seen.chunks += len(list((night.warehouse.folder / "labels").glob("*.parquet")))
    seen.statuses += Counter(label.status for label in night.labels)


def _durable(folder: Path, seen: Seen) -> Counter[str]:
    """How often each identity stands in the committed chunks, each of which is read whole."""
    import pyarrow.parquet as pq

    found = Counter[str]()
    for chunk in folder.glob("*.parquet"):
        try:
            found.update(pq.read_table(chunk)["identity"].to_pylist())
        except Exception as error:  # whatever is wrong with it
            seen.unreadable += 1
            sys.stderr.write(f"{chunk}: {error}\n")
    return found


def _undisturbed(work: Path, url: str, queries: list[str]) -> float:
    """Seconds a process takes for these queries, start and end included; the index is built by then."""
    settings = _settings(work, url)
    for asked in (queries[:1], queries):
        fresh_night(settings, asked)
        start = time.monotonic()
        _ended(_start(settings), None)
    return time.monotonic() - start


def _settings(work: Path, url: str) -> "Settings":
    return laptop(work, teacher__url=f"{url}/v1", teacher__concurrency=CONCURRENCY)


def _start(settings: "Settings") -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "benchmarks.kills", str(settings.folder), str(settings.teacher.url)]
    return subprocess.Popen(command)


def _ended(worker: "subprocess.Popen[bytes]", patience: float | None) -> bool:
    """Whether it ended by itself, all labelled, within `patience` seconds; else it is killed."""
    try:
        if worker.wait(patience):
            raise RuntimeError(f"the labelling process failed with exit code {worker.returncode}")
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
        return False
    return True


class Noted:
    """An engine that notes each prompt's key in a file before the engine has it: a kill can't take that back."""

    def __init__(self, engine: "Engine", path: Path) -> None:
        self.engine, self.model = engine, engine.model
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def complete(self, task: "type[Task]", prompts: "Iterable[Prompt]") -> "Iterator[Completion]":
        """What the engine gives."""

        def noted() -> "Iterator[Prompt]":
            for prompt in prompts:
                os.write(self._file, f"{prompt.key}\n".encode())
                yield prompt

        return self.engine.complete(task, noted())

    def prefix_cache(self) -> tuple[int, int] | None:
        """The engine's."""
        return self.engine.prefix_cache()

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def _label(work: Path, url: str) -> None:
    """The labelling process: what `stillhouse label` does after it took the log."""
    settings = _settings(work, url.removesuffix("/v1"))
    from flows.retrieve import retrieve_facts
    from flows.teacher import open_engine
    from teacher.label import label
    from teacher.requests import pending

    night = night_of(settings)
    retrieve_facts(night)
    waiting = pending(night.folder / "requests.parquet", night.warehouse)
    label(
        night.task,
        waiting,
        lambda: Noted(open_engine(settings), settings.folder / ASKED),
        settings.teacher.max_tokens,
        night.warehouse,
        night.id,
    )


if __name__ == "__main__":
    _label(Path(sys.argv[1]), sys.argv[2])
