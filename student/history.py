"""A training's curve: what was logged of it, step by step, in the adapter's folder."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from labels.files import write_text

FILE = "training.json"
KEPT = ("step", "loss", "learning_rate", "grad_norm", "tokens_per_second", "seconds")
"""`loss` in nats a token, its mean since the line before; `seconds` trained up to the step, of all sessions."""


def write_history(folder: Path, logged: Iterable[Mapping[str, float]]) -> None:
    """Keep the curve: the lines of the trainer's log that hold a loss."""
    lines = [{name: line[name] for name in KEPT if name in line} for line in logged if "loss" in line]
    write_text(folder / FILE, json.dumps(lines))


def read_history(folder: Path) -> list[dict[str, float]]:
    """The curve of a finished adapter, one line for every few steps."""
    lines: list[dict[str, float]] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return lines
