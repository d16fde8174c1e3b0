"""`stillhouse train`: a student from right answers in a file; no teacher, no night."""

import shlex
from collections.abc import Mapping
from typing import Any

from evals.gold import find_gold
from flows.fit import fit, quiet_libraries, recipe_of
from flows.night import Night, alone_in
from flows.people import held_out
from flows.screen import Screen
from flows.settings import DEFAULT_WORK, Settings
from flows.tables import plain
from labels.errors import SettingsError
from labels.files import digest
from labels.guardrails import check_all
from labels.models import model_identity
from labels.records import Label
from labels.task import Task
from student.base import load_tokenizer
from student.dataset import build_dataset
from student.model_card import write_card
from student.recipe import Recipe
from student.selection import Selection


def train_on_file(settings: Settings, data: str) -> dict[str, Any]:
    """Train a student on `data` (a file, a folder or a Hub dataset: a query column and the task's fields).

    Left out: the queries of the profile's gold, those that people verified to measure by, and what is near them
    (invariant 6). Returns the student's version and folder, its rows, what was left out by the reason, and what to run
    next. Raises InputError where the data can't be read or leave too little to learn from, EngineError where the base
    can't be used, BusyError where a night holds the work folder.
    """
    if settings.student.pretrain.epochs or settings.student.rounds.most > 1:
        raise SettingsError(
            "student.pretrain and student.rounds take a night's log and labels; train on a file without them"
        )
    with alone_in(settings.folder):
        night = Night("train", settings, Screen())
        recipe = recipe_of(night)
        model_identity(recipe.base, recipe.revision)  # raises where it is no model, before any file is read
        answers = find_gold(data, settings.gold.query, night.task)
        quiet_libraries()
        warn(night, recipe, answers)
        dataset = build_dataset(
            night.task,
            [given_label(night.task, query, answer, data) for query, answer in answers.items()],
            [],
            held_out(night),
            night.work / "datasets",
            selection=Selection(**settings.student.data.model_dump()),
            seed=settings.seed,
            source="file",
        )
        left_out = {reason.replace("_", " "): count for reason, count in dataset.left_out.items() if count}
        without = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()) or "none"
        night.screen.say(f"  {dataset.rows:,} rows of {len(answers):,} right answers; left out: {without}")
        model = fit(night, recipe, dataset.folder, parent=None)
        write_card(model, night.task)
    return {
        "student": model.name,
        "folder": str(model),
        "dataset": str(dataset.folder),
        "rows": dataset.rows,
        "left_out": left_out,
        "next": next_command(settings, model.name),
    }


def given_label(task: type[Task], query: str, answer: Task, source: str) -> Label:
    """A right answer as the accepted label it amounts to."""
    return Label(
        identity=digest(task.name, task.version(), query, source),
        query=query,
        status="accepted",
        value=answer.to_json(),
        confidence={},
        reason="",
        raw="",
        facts=(),
        task=task.name,
        task_version=task.version(),
        model=source,
        prompt="",
        night="",
        tokens_in=0,
        tokens_out=0,
    )


def warn(night: Night, recipe: Recipe, answers: Mapping[str, Task]) -> None:
    """Say what of the right answers could never be served: what guardrails turn down, and what is cut short."""
    refused = [one for one in check_all([*answers.values()], [*answers], [()] * len(answers)) if one]
    if refused:
        night.screen.say(
            f"  [yellow]{len(refused):,} of the {len(answers):,} right answers would not pass the task's guardrails,[/] "
            f"so a student that gives them is not heard: {plain(str(refused[0]))}"
        )
    tokenizer = load_tokenizer(recipe.base, recipe.revision)
    texts = [answer.to_json() for answer in answers.values()]
    lengths = [len(ids) + 1 for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    most = night.settings.student.max_tokens
    if long := sum(length > most for length in lengths):
        night.screen.say(
            f"  [yellow]{long:,} of the {len(answers):,} right answers have more than student.max_tokens = {most} tokens,"
            f"[/] so a student that gives them is cut short; the longest has {max(lengths):,}"
        )


def next_command(settings: Settings, student: str) -> str:
    """The command that measures the student."""
    said = {"student": student, "data": settings.gold.path or "FILE", "task": settings.task}
    if settings.work != DEFAULT_WORK:
        said["work"] = settings.work
    return shlex.join(
        ["stillhouse", "evaluate", *(part for name, value in said.items() for part in (f"--{name}", value))]
    )
