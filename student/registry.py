"""The students on disk: what each was made of, how good it was found, which ones may go.

students/<version>/   the merged model and its tokenizer, as transformers and vLLM load them
    adapter/          the LoRA adapter that was merged, as PEFT loads it
    manifest.json     what it was made of, and its parity; without it there is no student
    reference.json    what it said when it was merged; served.json: how far its server was from that
    metrics.json      what was measured of it; README.md: all this as a model card
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labels.errors import InputError
from labels.files import MANIFEST, read_json, read_manifest, write_json

METRICS = "metrics.json"


@dataclass(frozen=True)
class Student:
    """One version: `parent` is the student that served when it was made, `gib` its weights on disk, `manifest` the rest."""

    version: str
    created: str
    parent: str | None
    dataset: str | None
    quantised_from: str | None
    gib: float
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any] | None


@dataclass(frozen=True)
class Figure:
    """One thing measured of a student: `value`, its 95% interval where it has one, and `on` what it was measured.

    `unit` is empty for shares of 0 to 1.
    """

    name: str
    value: float
    on: str
    low: float | None = None
    high: float | None = None
    unit: str = ""


def students(root: Path) -> list[Student]:
    """Every finished student under `root`, the oldest first."""
    found = [_student(manifest.parent) for manifest in root.glob(f"*/{MANIFEST}")]
    return sorted(found, key=lambda one: (one.created, one.version))


def record_metrics(folder: Path, night: str, figures: list[Figure], data: Mapping[str, Any]) -> None:
    """Write what was measured of a student beside it: by which night, and `data`, the counts of what it learnt from.

    Raises InputError where there is no finished student.
    """
    if not read_manifest(folder):
        raise InputError(f"{folder} is no student: it has no {MANIFEST}; wanted the folder of a finished one")
    write_json(folder / METRICS, {"night": night, "figures": [asdict(one) for one in figures], "data": dict(data)})


def figures_of(metrics: Mapping[str, Any] | None) -> list[Figure]:
    """The figures that `record_metrics` wrote; none where nothing was measured."""
    return [Figure(**one) for one in metrics["figures"]] if metrics else []


def collect(root: Path, adapters: Path, bases: Path, keep: int, named: set[str]) -> list[str]:
    """Remove the oldest students beyond `keep` that are not `named` (by releases); returns their versions.

    A quantised variant counts with the student it was made of, and goes with it unless it is named itself. Adapters that
    only those had used go too, `bases` (pretrained further) that no student is left of, and what unfinished attempts left.
    """
    there = students(root)
    families = {one.version: one.quantised_from or one.version for one in there}
    free = dict.fromkeys(families[one.version] for one in reversed(there) if one.version not in named)
    gone = set(list(free)[keep:])
    removed = [one for one in there if families[one.version] in gone and one.version not in named]
    for one in removed:
        _remove(root / one.version)
    left = {name for one in there if one not in removed for name in _adapters_of(one, adapters)}
    for name in {name for one in removed for name in _adapters_of(one, adapters)} - left:
        _remove(adapters / name)
    for folder in root.glob("student-*"):
        if not (folder / MANIFEST).exists():
            shutil.rmtree(folder)
    used = {Path(str(one.manifest.get("recipe", {}).get("base"))).name for one in there if one not in removed}
    for folder in bases.glob("*"):
        if folder.name not in used:
            _remove(folder)
    return [one.version for one in removed]


def _remove(folder: Path) -> None:
    """The manifest first: what is half removed does not exist."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _adapters_of(student: Student, adapters: Path) -> Iterator[str]:
    """The adapter it was merged from, and those that one was trained on from."""
    name = student.manifest.get("adapter")
    while name:
        yield name
        name = (read_manifest(adapters / name) or {}).get("parent")


def _student(folder: Path) -> Student:
    manifest = read_manifest(folder) or {}
    return Student(
        version=folder.name,
        created=manifest.get("created", ""),  # students of before have none: they are the oldest
        parent=manifest.get("parent"),
        dataset=manifest.get("dataset"),
        quantised_from=manifest.get("quantised_from"),
        gib=sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**30,
        manifest=manifest,
        metrics=read_json(folder / METRICS),
    )
