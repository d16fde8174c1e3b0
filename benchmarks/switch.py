"""Switches of release under load: no error, no answer that mixes releases, no slower than between the switches.

Generations are published in turn by the real `publish`, two with one student, the next two with another, while
`stillhouse serve` with several processes answers single questions and batches, head and tail, at a steady rate. Every answer
names its release and tells by its value which release or student it is from. The students are stand-ins on loopback.
"""

import statistics
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.callers import Plan
from benchmarks.judge import PROBLEMS, SOURCES
from benchmarks.load import Seen, loading
from benchmarks.online import private_redis
from benchmarks.processes import running
from benchmarks.service import service, students
from benchmarks.told import entries_of, release_of
from cache.client import connect
from cache.publish import publish
from cache.roll import wait_ready
from labels.records import Release

WARM_SECONDS = 5.0
SETTLE_SECONDS = 1.0
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Switch:
    """When release `number` began to be written, when all was ready for it, and when it had been published (monotonic)."""

    number: int
    begin: float
    ready: float
    end: float


def run(
    switches: int = 10, entries: int = 100_000, rate: float = 1000.0, workers: int = 2, pause: float = 6.0
) -> dict[str, Any]:
    """Errors, answers of mixed releases, p99 during switches over that between them, and how long a switch takes.

    A switch lasts from the first key written until SETTLE_SECONDS after the release was switched; `head` and `tail` are
    queries that the cache has, and that a student answers.
    """
    changes = ("task=benchmarks.told:Told", f"serve.workers={workers}")
    with ExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory()))
        redis_url = stack.enter_context(private_redis())
        client = stack.enter_context(closing(connect(redis_url)))
        publish(client, entries_of(1, entries), release_of(1, entries))
        student = stack.enter_context(running(students(work)))
        served = stack.enter_context(running(service(work, redis_url, student.url, *changes)))
        load = stack.enter_context(loading(served.url, Plan(rate, entries, releases=switches + 1)))
        time.sleep(WARM_SECONDS)
        started, done = time.monotonic(), list[Switch]()
        for number in range(2, switches + 2):
            time.sleep(pause)
            done.append(_switch(client, number, entries))
            sys.stderr.write(f"switch {len(done)} of {switches}\n")
        time.sleep(pause)
    return _figures(load.seen, done, started)


def _switch(client: Any, number: int, entries: int) -> Switch:  # noqa: ANN401 - any client
    ready_at = 0.0

    def ready(release: Release) -> None:
        nonlocal ready_at
        wait_ready(client, release, READY_SECONDS, lambda _: None)
        ready_at = time.monotonic()

    begin = time.monotonic()
    publish(client, entries_of(number, entries), release_of(number, entries), ready=ready)
    return Switch(number, begin, ready_at, time.monotonic())


def _figures(seen: Seen, switches: list[Switch], started: float) -> dict[str, Any]:
    switching = np.zeros(len(seen), bool)
    for one in switches:
        switching |= (seen["at"] >= one.begin) & (seen["at"] < one.ready + SETTLE_SECONDS)
    steady = ~switching & (seen["at"] >= started)
    # whoever still gets the release before, and when it was asked at the latest
    stale = [seen["at"][(seen["release"] < one.number) & (seen["release"] >= 0)].max() for one in switches]
    took = [max(0.0, last - one.ready) * 1000 for last, one in zip(stale, switches, strict=True)]
    heads, single = seen["head"], ~seen["batch"]
    figures: dict[str, Any] = {
        "switches": len(switches),
        "answers": len(seen),
        **{name.replace(" ", "_"): int((seen["problem"] == n).sum()) for n, name in enumerate(PROBLEMS) if name},
        "none": int((seen["source"] == SOURCES.index("none")).sum()),
        "p99_switch_vs_steady": _ratio(seen["ms"], switching & heads & single, steady & heads & single),
        "p99_tail_switch_vs_steady": _ratio(seen["ms"], switching & ~heads, steady & ~heads),
        "p99_batch_switch_vs_steady": _ratio(seen["ms"], switching & ~single, steady & ~single),
        "steady_p99_ms": _p99(seen["ms"][steady & heads & single]),
        "switch_p99_ms": _p99(seen["ms"][switching & heads & single]),
        "slowest_ms": round(float(seen["ms"].max()), 1),
        "everywhere_ms": round(statistics.median(took), 1),
        "everywhere_ms_greatest": round(max(took), 1),
        "publish_s": round(statistics.median(one.end - one.begin for one in switches), 2),
    }
    return figures


def _p99(values: Any) -> float:  # noqa: ANN401 - an array
    return round(float(np.percentile(values, 99)), 2)


def _ratio(ms: Any, switching: Any, steady: Any) -> float:  # noqa: ANN401 - arrays
    return round(float(np.percentile(ms[switching], 99) / np.percentile(ms[steady], 99)), 2)
