"""Training: tokens a second against the bare TRL script, and what all preparation takes of it.

Both train the shipped base on the invented shop's rows with the profile's settings, each in a process of its own with one
thread, taking turns at going first. Counted on both sides: training with its checkpoints. Not counted: starting Python,
loading the libraries and the base. The bare script is `SFTTrainer` on prompt and completion, with no callbacks of ours.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.teacher import spread

OURS, TRL = "ours", "trl"


def run(rows: int = 960, rounds: int = 3, large: int = 10_000) -> dict[str, Any]:
    """Ratios of rates (medians of `rounds` of `rows` rows, one epoch, with least and greatest), and for `large` rows the
    share of training's seconds that dataset, tokens and pre-flight take.
    """
    with TemporaryDirectory() as work:
        runs = []
        for turn in range(rounds):
            order = [OURS, TRL] if turn % 2 else [TRL, OURS]
            runs.append({name: _in_a_process(name, rows, 1, Path(work) / f"{turn}") for name in order})
        prepared = _in_a_process(OURS, large, None, Path(work) / "large") if large else None
    ratios = spread([each[OURS]["content_tokens_per_s"] / each[TRL]["content_tokens_per_s"] for each in runs])
    figures: dict[str, Any] = {"vs_trl": ratios["median"], "vs_trl_range": [ratios["min"], ratios["max"]]}
    if prepared:
        share = prepared["preparation_s"] / prepared["training_s"]
        figures |= {"preparation_share": round(share, 4), "preparation": prepared}
    figures |= {"rows": rows, "rounds": rounds}
    for name in (OURS, TRL):
        rates = ("label_tokens_per_s", "content_tokens_per_s", "training_s")
        last = {key: value for key, value in runs[-1][name].items() if key not in rates}
        figures[name] = {rate: spread([each[name][rate] for each in runs]) for rate in rates} | last
    return figures


def _in_a_process(name: str, rows: int, epochs: int | None, work: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.trainers", name, str(rows), str(epochs or 0), str(work / name)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(
        f"{name}: {rows:,} rows, {found['training_s']:.1f} s, {found['content_tokens_per_s']:,.0f} tokens/s\n"
    )
    return found
