"""The commands about students: train, evaluate, compare, students. Heavy imports come after parsing, as in flows/cli.py."""

import shlex
from typing import Annotated

import typer

from flows.options import JsonOption, ProfileOption, SetOption, WorkOption, out, settings_of, show

TaskOption = Annotated[str | None, typer.Option(help="The task, as module:Class. \\[default: the profile's]")]
DataOption = Annotated[
    str | None,
    typer.Option(help="Right answers: a file with a query column and the task's fields, or a `datasets` name."),
]


def train(
    data: Annotated[str, typer.Option(help="Right answers: a file with a query column and the task's fields.")],
    profile: ProfileOption = "laptop",
    task: TaskOption = None,
    gold: Annotated[
        str | None, typer.Option(help="Held-out right answers: these, and what is near, don't train.")
    ] = None,
    work: WorkOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a student on right answers from a file: no teacher, no night.

    Then measure it: [bold]stillhouse evaluate --student VERSION --data FILE[/].
    """
    settings = settings_of(profile, work, set_, task=task, gold__path=gold)
    from flows.tables import answer_table
    from flows.training import train_on_file

    found = train_on_file(settings, data)
    show(found, as_json, lambda: answer_table({name: value for name, value in found.items() if name != "next"}))
    if not as_json:
        same = [*(["--profile", profile] if profile != "laptop" else []), *(f"--set={pair}" for pair in set_ or [])]
        out.print(f"Measure it next:\n  {found['next']} {shlex.join(same)}".rstrip(), soft_wrap=True, markup=False)


def evaluate(
    data: DataOption = None,
    student: Annotated[
        str | None, typer.Option(help="A version of [bold]stillhouse students[/], or base. \\[default: the one served]")
    ] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Measure p50 and p99 too.")] = False,
    profile: ProfileOption = "laptop",
    task: TaskOption = None,
    work: WorkOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a student, as it is served, on any right answers; the profile's gold unless told.

    What the student was trained on, and what is near it, is left out and counted.
    """
    settings = settings_of(profile, work, set_, task=task)
    from flows.evaluating import evaluate_student
    from flows.tables import evaluation_table

    found = evaluate_student(settings, data, student, latency)
    show(found, as_json, lambda: evaluation_table(found))


def compare(
    profile: ProfileOption = "laptop", work: WorkOption = None, set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """What the last night's student owes to its labels: beside it, one trained on unfiltered labels and one on people's
    verdicts alone, all measured on the same gold. Takes two trainings; its figures join the night's report.
    """
    settings = settings_of(profile, work, set_)
    from flows.compare import compare_students
    from flows.tables import rows_table

    rows = compare_students(settings)
    show(rows, as_json, lambda: rows_table(rows))


def students(
    profile: ProfileOption = "laptop", work: WorkOption = None, set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """The students on disk, the latest last: what each was made of, how good it is, which one is served."""
    settings = settings_of(profile, work, set_)
    from flows.students import list_students
    from flows.tables import rows_table

    rows = list_students(settings)
    told = [name for name in (rows[0] if rows else ()) if any(row[name] is not None for row in rows)]
    show(rows, as_json, lambda: rows_table([{name: row[name] for name in told} for row in rows]))


def add_student_commands(app: typer.Typer) -> None:
    """Put the commands on the command line."""
    for command in (train, evaluate, compare, students):
        app.command()(command)
