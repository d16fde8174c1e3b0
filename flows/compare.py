"""`stillhouse compare`: what the student owes to its labels. Beside it two more, alike in everything but what they learn from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from evals.metrics import Pairs, difference_interval, score
from flows.browse import night_folder
from flows.evaluate import bands_of, dataset_of, gold_of_log
from flows.fit import fit, quiet_libraries
from flows.head import head_of
from flows.night import SECRET, Night, begin_night
from flows.people import answers_of
from flows.report import report_night
from flows.screen import Screen
from flows.served import passing, student_answers
from flows.settings import Settings
from flows.train import dataset_of_night
from labels.errors import InputError
from labels.files import read_json, read_manifest, write_json
from labels.records import Label
from labels.task import Task
from student.dataset import Dataset, read_dataset
from student.recipe import Recipe
from student.selection import Selection

EVERYTHING = Selection(temper=0, min_confidence=0, near=1, verified_weight=1)
"""No filter, but for what measures."""


def compare_students(settings: Settings) -> list[dict[str, Any]]:
    """The last night's student, one trained on unfiltered labels and one on people's answers alone, on the same gold.

    A row each: name, rows it learnt from, f1 with its interval, and for the latter two how far the student is ahead, with
    its paired interval. They are written into the night's summary and report. Raises InputError where no night finished,
    or there is no gold.
    """
    folder = night_folder(settings, None)
    summary = read_json(folder / "summary.json") or {}
    with begin_night(as_it_was(settings, folder), Screen(), again=folder.name) as night:
        student = night.work / "students" / str(summary.get("student_model"))
        if not read_manifest(student):
            raise InputError(f"{student} is gone; run `stillhouse night` again, then compare")
        gold = tail_gold(night, student)
        quiet_libraries()
        told = {one.query for one in answers_of(night)}
        datasets = {
            "on people's verdicts alone": rows_for(night, [one for one in night.labels if one.query in told]),
            "on unfiltered labels": rows_for(night, unfiltered(night.labels)),
        }
        recipe = Recipe(**(read_manifest(student) or {})["recipe"])
        rivals = {name: rival(night, recipe, student, dataset) for name, dataset in datasets.items() if dataset}
        rows = compared(night, {"the night's student": student, **rivals}, gold)
        write_json(folder / "summary.json", summary | {"comparisons": rows})
        report_night(night, summary | {"comparisons": rows}, student, head_of(night))
    return rows


def as_it_was(settings: Settings, folder: Path) -> Settings:
    """The settings that a night ran with; what it did not write down, and where it lies now, as they are."""
    then = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    for section, names in SECRET.items():
        then[section] |= {name: getattr(getattr(settings, section), name) for name in names}
    return Settings.model_validate(then | {"work": settings.work})


def tail_gold(night: Night, student: Path) -> dict[str, Task]:
    """The gold that students are measured by: outside the head. Raises InputError where there is none."""
    bands = bands_of(night)
    gold = {query: right for query, right in gold_of_log(night, student).items() if bands[query] != "head"}
    if not gold:
        raise InputError("there is no gold to compare students on; name some by gold.path, or have people verify more")
    return gold


def unfiltered(labels: Sequence[Label]) -> list[Label]:
    """Every answer the teacher gave, those that guardrails refused too."""
    return [replace(label, status="accepted") for label in labels if label.value]


def rows_for(night: Night, labels: Sequence[Label]) -> Dataset | None:
    """The dataset of these labels and of what people answered of them; None, and why, where that is too little."""
    try:
        data = night.settings.student.data
        everything = replace(EVERYTHING, replay=data.replay, replay_share=data.replay_share)
        return dataset_of_night(night, labels, everything)
    except InputError as error:
        night.screen.say(f"  [yellow]left out of the comparison:[/] {escape(str(error))}")
        return None


def rival(night: Night, recipe: Recipe, student: Path, dataset: Dataset) -> Path:
    """A student of the same recipe on this dataset, trained for as many steps."""
    ours = dataset_of(night, student)
    rows = sum(row.times for row in read_dataset(ours)) if ours else dataset.rows
    night.screen.say(f"  {dataset.rows:,} rows")
    return fit(night, replace(recipe, epochs=max(1, round(recipe.epochs * rows / dataset.rows))), dataset.folder, None)


def compared(night: Night, students: Mapping[str, Path], gold: Mapping[str, Task]) -> list[dict[str, Any]]:
    """Each student, served, on the gold; the first beside every other."""
    pairs: dict[str, Pairs] = {}
    for name, student in students.items():
        with passing(night) as apart:
            given, _, _ = student_answers(apart, student, list(gold))
        pairs[name] = [(given[query], right) for query, right in gold.items()]
    first, *_ = pairs.values()
    rows = []
    for name, found in pairs.items():
        learnt, scored = dataset_of(night, students[name]), score(found)
        row: dict[str, Any] = {
            "name": name,
            "rows": len(read_dataset(learnt)) if learnt else None,
            "f1": round(scored.f1, 4),
        }
        row["f1_interval"] = [round(end, 4) for end in scored.f1_interval]
        ahead = difference_interval(first, found) if found is not first else None
        row["student_ahead_by"] = [round(end, 4) for end in ahead] if ahead else None
        rows.append(row)
    return rows
