"""Prefect's share: the demo's night as a flow, against the sum of its stages called as plain functions.

Each runs in a process and a work folder of its own, from nothing, one after the other.
"""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROWS, QUERIES = 200_000, 9_000


def run() -> dict[str, float]:
    """`prefect_vs_plain`: wall time of the flow over the plain stages' sum (1.10 is the aim); and both, in seconds."""
    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as prefect:
        stages = _in_a_process("plain", plain)
        wall = _in_a_process("prefect", prefect)
    return {
        "prefect_vs_plain": round(wall["wall"] / stages["stages"], 3),
        "prefect_wall_s": round(wall["wall"], 1),
        "prefect_stages_s": round(wall["stages"], 1),
        "plain_stages_s": round(stages["stages"], 1),
    }


def _in_a_process(how: str, work: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.night", how, work]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _night(how: str, work: str) -> dict[str, float]:
    from demo.settings import demo_settings
    from flows.environment import prepare, prepare_prefect
    from flows.settings import load_settings

    prepare(offline=True)
    prepare_prefect(Path(work))
    changes = {key.replace("__", "."): value for key, value in demo_settings(work).items()}
    settings = load_settings("laptop", {**changes, "work": work}, environment={})
    from demo.write import write_demo
    from flows.night import begin_night
    from flows.nightly import PlainRun, run_night, run_stages
    from flows.screen import Screen

    screen = Screen()
    write_demo(settings.folder / "shop", rows=ROWS, queries=QUERIES)
    start = time.perf_counter()
    with ExitStack() as services:
        if how == "plain":
            with begin_night(settings, screen, services) as night:
                summary = run_stages(night, PlainRun(screen))
        else:
            summary = run_night(settings, screen, services)
        wall = time.perf_counter() - start
    return {"wall": wall, "stages": sum(summary["seconds"].values())}


if __name__ == "__main__":
    print(json.dumps(_night(*sys.argv[1:])), flush=True)
