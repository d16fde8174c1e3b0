"""`stillhouse evaluate`: measure one student, as it is served, on any right answers; no night is needed."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from evals.gold import find_gold
from evals.metrics import score
from flows.evaluate import dataset_of, gold_slices, seen_in, trained_on
from flows.night import Night
from flows.publish import serving
from flows.screen import Screen
from flows.served import footprint, general_loss, student_answers, student_latency
from flows.settings import Settings
from labels.errors import InputError, SettingsError
from labels.files import digest, read_manifest, write_json
from labels.models import model_identity
from labels.task import Task
from student.near import near_duplicates

BASE = "base"


def evaluate_student(settings: Settings, data: str | None, student: str | None, latency: bool) -> dict[str, Any]:
    """The figures of a student on `data` (a file, a folder, a Hub dataset; the profile's gold unless told), also written
    to the work folder's evaluations.

    `student` is a version under students/, `base` for the untrained base; unless told the one being served, else the
    newest. Queries that it was trained on, or near one of these, are left out and counted (invariant 6). Raises
    SettingsError where there is no such student or no data is named, InputError where nothing is left to measure by.
    """
    if not (source := data or settings.gold.path):
        raise SettingsError("nothing to measure on; wanted --data FILE, or gold.path in the profile")
    with ExitStack() as own:
        night = Night("evaluate", settings, Screen(), own)
        model = find_student(night, student)
        gold = find_gold(source, settings.gold.query, night.task)
        known = student == BASE or dataset_of(night, model) is not None
        if not known:
            night.screen.say("  [yellow]what it was trained on is gone:[/] queries that it saw may be among these")
        clean = without_trained(gold, trained_on(night, model))
        general = general_loss(night, model) if student != BASE else None  # first: it serves the base alone
        given, invalid, _ = student_answers(night, model, list(clean))
        found = score([(given[query], right) for query, right in clean.items()])
        parts = gold_slices(night.task, clean, given, None, seen_in(night, model))
        summary = {
            "student": model.name,
            "data": source,
            "task": settings.task,
            "queries": len(clean),
            "left_out": len(gold) - len(clean),
            "trained_on_known": known,
            "invalid_rate": round(invalid, 4),
            "score": found.to_json(),
            "slices": [part.to_json() for part in parts],
            "size": footprint(model),
            "latency": [one.to_json() for one in student_latency(night, model, list(clean))] if latency else None,
            "general": general.to_json() if general else None,
        }
        name = f"{Path(source.partition(':')[0]).stem}-{digest(source, night.task.version())}.json"
        file = night.work / "evaluations" / model.name / name
        write_json(file, summary)
        return summary | {"file": str(file)}


def find_student(night: Night, version: str | None) -> Path:
    """The model folder of a version under students/, of `base`, or where None of the student served, else of the newest."""
    students = night.work / "students"
    there = sorted(students.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if version == BASE:
        model_identity(night.settings.student.base)  # raises where it is no model
        return Path(night.settings.student.base)
    if version is None:
        has_redis = night.settings.cache.redis_url or (night.work / "redis").exists()
        if has_redis and (release := serving(night)):
            version = release.student
        elif there:
            version = there[-1].parent.name
            night.screen.say(f"nothing is released: measuring the newest student, {version}")
    if version is None or not read_manifest(students / version):
        have = ", ".join(path.parent.name for path in there) or "none"
        raise SettingsError(
            f"no student {version or ''} in {students}: it has {have}. Wanted --student VERSION of these, or base; "
            "train one with stillhouse train or stillhouse night"
        )
    return students / version


def without_trained(gold: dict[str, Task], trained: list[str]) -> dict[str, Task]:
    """The gold of queries that a student did not learn from, nor from one near them. Raises InputError where none is left."""
    near = near_duplicates(list(gold), trained)
    clean = {query: right for (query, right), close in zip(gold.items(), near, strict=True) if not close}
    if not clean:
        raise InputError(
            f"the student was trained on each of the {len(gold):,} queries given, or on one near it: that is no measurement. "
            "Give --data that was held out"
        )
    return clean
