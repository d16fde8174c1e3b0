"""What breaks under load, one fault after another: never a wrong answer, never a late one; how soon all is well again.

`stillhouse serve` answers single questions and batches at a steady rate, head and tail, while a part of what it stands on is
killed, frozen, slowed down, removed or corrupted for some seconds and then put right. Every answer must be none or its query's
own, of a release that was published whole, and be there within the deadline and ALLOWED_MS for the way there and back (what the
callers' own process stands still for want of a core is not counted). All is well again when, for WELL_SECONDS on end, every
question of the head was answered from the cache and every one of the tail was answered.
"""

import itertools
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Column, Table

from benchmarks import breaking
from benchmarks.breaking import Fault, Scene
from benchmarks.callers import Plan
from benchmarks.judge import PROBLEMS, SOURCES
from benchmarks.load import Seen, loading
from benchmarks.processes import Server, running
from benchmarks.service import STUDENT_SECONDS, cluster, durable_redis, service, students
from benchmarks.told import entries_of, release_of
from cache.client import connect
from cache.publish import publish

DEADLINE_MS = 300
ALLOWED_MS = 100
WELL_SECONDS = 0.5
WARM_SECONDS = 5.0
NEXT_SECONDS = 1.5
SHOWN = 5
TAIL_SHARE = 0.1
FAULTS: Mapping[str, Fault] = {
    "no_fault": breaking.nothing,
    "redis_killed": breaking.redis_killed,
    "redis_frozen": breaking.redis_frozen,
    "student_killed": breaking.student_killed,
    "student_slow": breaking.student_slow,
    "both_killed": breaking.both_killed,
    "pointer_missing": breaking.pointer_missing,
    "pointer_broken": breaking.pointer_broken,
    "half_written": breaking.half_written,
    "values_corrupted": breaking.values_corrupted,
}
CLUSTER_FAULTS: Mapping[str, Fault] = {
    "cluster_node_lost": breaking.node_lost,
    "cluster_pointer_node_lost": breaking.pointer_node_lost,
}
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Broken:
    """When a fault began, when putting it right began and was done, and until when it was watched; by time.monotonic.

    `notes` is what it found out.
    """

    name: str
    begin: float
    ending: float
    end: float
    until: float
    notes: Mapping[str, object]


def run(entries: int = 100_000, rate: float = 500.0, seconds: float = 4.0, settle: float = 4.0) -> dict[str, Any]:
    """The figures of each fault, and over all: whether what must hold holds; answers wrong, late, failed; faults not over."""
    figures: dict[str, dict[str, Any]] = {}
    with TemporaryDirectory() as folder, running(durable_redis(Path(folder))) as redis:
        figures |= _under_load(FAULTS, Path(folder), [redis], entries, rate, seconds, settle)
    with TemporaryDirectory() as folder, cluster(Path(folder)) as nodes:
        figures |= _under_load(CLUSTER_FAULTS, Path(folder), nodes, entries, rate, seconds, settle)
    Console(stderr=True, width=130).print(_table(figures))
    over_all = {name: sum(one[name] for one in figures.values()) for name in ("answers", "wrong", "late", "failed")}
    over_all["not_recovered"] = sum(one["recovery_s"] is None for one in figures.values())
    bad = over_all["wrong"] + over_all["late"] + over_all["failed"] + over_all["not_recovered"]
    return {"holds": not bad, **over_all, **figures}


def _under_load(
    faults: Mapping[str, Fault],
    work: Path,
    nodes: list[Server],
    entries: int,
    rate: float,
    seconds: float,
    settle: float,
) -> dict[str, dict[str, Any]]:
    """The figures of each of these faults, on one service."""
    first, clustered = nodes[0], len(nodes) > 1
    with ExitStack() as stack:
        client = stack.enter_context(closing(connect(first.url, clustered)))
        publish(client, entries_of(1, entries), release_of(1, entries))
        student = stack.enter_context(running(students(work)))
        changes = (
            "task=benchmarks.told:Told",
            f"cache.deadline_ms={DEADLINE_MS}",
            f"cache.cluster={str(clustered).lower()}",
        )
        served = stack.enter_context(running(service(work, first.url, student.url, *changes)))
        scene = Scene(work, client, nodes, student, STUDENT_SECONDS, entries, 1, {})
        plan = Plan(rate, entries, tail_share=TAIL_SHARE, releases=breaking.HALF_WRITTEN - 1)
        load = stack.enter_context(loading(served.url, plan))
        time.sleep(WARM_SECONDS)
        done = [_broken(name, fault, scene, seconds, settle) for name, fault in faults.items()]
    errors = [line for line in served.log.read_text(errors="replace").splitlines() if '"level": "error"' in line]
    sys.stderr.write("".join(f"the service logged: {line}\n" for line in errors[:SHOWN]))
    return {one.name: _figures(load.seen, one) for one in done}


def _broken(name: str, fault: Fault, scene: Scene, seconds: float, settle: float) -> Broken:
    sys.stderr.write(f"{name}\n")
    scene.notes.clear()
    begin = time.monotonic()
    with fault(scene):
        time.sleep(seconds)
        ending = time.monotonic()
    end = time.monotonic()
    time.sleep(settle)
    until = time.monotonic()
    scene.publish_next()  # what one fault left in the processes' memory is not the next one's
    time.sleep(NEXT_SECONDS)
    return Broken(name, begin, ending, end, until, dict(scene.notes))


def _figures(seen: Seen, broken: Broken) -> dict[str, Any]:
    """Of the answers asked for from the fault's begin to the end of the watch: by source, what was amiss, how slow."""
    seen = seen[(seen["at"] >= broken.begin) & (seen["at"] < broken.until)]
    source, problem = seen["source"], seen["problem"]
    failed = problem == PROBLEMS.index("failed")
    nones = seen["ms"][source == SOURCES.index("none")]
    lesser = np.where(seen["head"], source != SOURCES.index("cache"), source > SOURCES.index("tail-cache"))
    unwell: Flags = lesser | (problem > 0)
    return {
        "answers": len(seen),
        **{name: int((source == n).sum()) for n, name in enumerate(SOURCES[:-1])},
        "failed": int(failed.sum()),
        "wrong": int(((problem > 0) & ~failed).sum()),
        "late": int((seen["ms"] > DEADLINE_MS + ALLOWED_MS).sum()),
        "p99_ms": round(float(np.percentile(seen["ms"], 99)), 1),
        "none_p99_ms": round(float(np.percentile(nones, 99)), 1) if len(nones) else None,
        "slowest_ms": round(float(seen["ms"].max()), 1),
        "slowest_served_ms": round(float(seen["served_ms"].max()), 1),
        "fault_s": round(broken.ending - broken.begin, 2),
        "put_right_s": round(broken.end - broken.ending, 2),
        "recovery_s": _recovery(seen, unwell, broken),
        "unwell_after": int((unwell & (seen["at"] >= broken.end)).sum()),
        **broken.notes,
    }


def _recovery(seen: Seen, unwell: Flags, broken: Broken) -> float | None:
    """Seconds from when it was put right until all was well for WELL_SECONDS on end; None where that never was."""
    edges = [broken.end, *seen["at"][unwell & (seen["at"] >= broken.end)], broken.until]
    for last, following in itertools.pairwise(edges):
        if following - last >= WELL_SECONDS:
            return round(float(last - broken.end), 3)
    return None


def _table(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    shown = [*SOURCES[:-1], "failed", "wrong", "late", "slowest_ms", "put_right_s", "recovery_s"]
    table = Table(
        Column("fault", no_wrap=True),
        *shown,
        title=f"answers during each fault and after it, deadline {DEADLINE_MS} ms",
    )
    for name, found in figures.items():
        table.add_row(name, *(str(found[one]) for one in shown))
    return table
