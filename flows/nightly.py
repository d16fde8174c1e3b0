"""The night, as Prefect runs it: read `nightly` for what happens and in which order.

Each stage is a plain function of its own file, called here as a task. What passes between them is small; the data
lie in the work folder, content-addressed, so that a night that died is simply run again and redoes nothing.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from rich.markup import escape

from evals.gate import passed
from evals.sample import Audit
from flows.choose import choose_active
from flows.gate import pass_gate
from flows.head import head_of
from flows.ingest import ingest_log
from flows.label import label_queries
from flows.night import Night, begin_night
from flows.publish import measure_lookup, publish_release, serving
from flows.report import report_night, summarise
from flows.retrieve import retrieve_facts
from flows.review import calibrate, judge_teacher, sample_labels
from flows.screen import Screen
from flows.server import prefect_server
from flows.settings import Settings, load_settings
from flows.students import collect_students, evaluate_student
from flows.train import train_student
from flows.waiting import suspend, wait_here, waiting_night
from flows.watch import watch_lookups
from labels.errors import StillhouseError
from labels.files import write_json

Result = TypeVar("Result")
Wait = Callable[[Night, Audit], None]


class Run(Protocol):
    """Calls a stage by name and keeps its time."""

    seconds: dict[str, float]

    def __call__(self, name: str, stage: Callable[..., Result], *arguments: Any) -> Result:  # noqa: ANN401
        """The stage's result."""
        ...


class PlainRun:
    """Calls stages as the plain functions they are."""

    def __init__(self, screen: Screen) -> None:
        self.screen, self.seconds = screen, dict[str, float]()

    def __call__(self, name: str, stage: Callable[..., Result], *arguments: Any) -> Result:  # noqa: ANN401
        """The stage's result; its name before it starts, its time after."""
        self.screen.say(f"[bold]{name}[/]")
        start = time.perf_counter()
        try:
            return self.call(name, lambda: stage(*arguments))
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 2)

    def call(self, name: str, stage: Callable[[], Result]) -> Result:
        """How a stage is called."""
        return stage()


class PrefectRun(PlainRun):
    """Calls stages as Prefect tasks, so that each is a run one can see, with its state and its log."""

    def call(self, name: str, stage: Callable[[], Result]) -> Result:
        """As a task without parameters: Prefect need not look through the data."""
        return task(name=name, cache_policy=NO_CACHE)(stage)()


@flow(name="night")
def nightly(profile: str = "laptop", changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The whole night of a profile, as a deployment runs it; returns the summary."""
    screen = Screen()
    try:
        settings = load_settings(profile, changes)
        with begin_night(settings, screen, again=waiting_night(settings)) as night:
            return run_stages(night, PrefectRun(screen), suspend)
    except StillhouseError as error:
        screen.say(f"[bold red]error:[/] {escape(str(error))}")
        raise


def run_night(
    settings: Settings, screen: Screen, services: ExitStack | None = None, force: bool = False
) -> dict[str, Any]:
    """The same from here and now; what it starts (Redis, the student's server) lives as long as `services`."""
    with begin_night(settings, screen, services) as night, prefect_server(settings.folder):
        return flow(name="night")(lambda: run_stages(night, PrefectRun(screen), force=force))()


def run_stages(night: Night, run: Run, wait: Wait = wait_here, force: bool = False) -> dict[str, Any]:
    """The night; returns its summary. `wait` is how it waits for people, where the settings say so; `force` publishes
    what the gate refuses.
    """
    log = run("ingest", ingest_log, night)
    corpora = run("retrieve", retrieve_facts, night)
    counts = run("label", label_queries, night)
    audit = run("sample", sample_labels, night)
    if night.settings.review.wait_seconds:
        wait(night, audit)  # no task: only a flow can be suspended
    judgement = run("judge", judge_teacher, night, audit)
    calibration = run("calibrate", calibrate, night)
    before = serving(night)
    online = run("watch", watch_lookups, night, before)
    student = run("train", train_student, night, before.student if before else None)
    shipped, variants, measured = run("evaluate", evaluate_student, night, student, before)
    checks = run("gate", pass_gate, night, counts, judgement, measured)
    refused = tuple(check.name for check in checks if not check.passed)
    head = head_of(night)
    release, lookup = before, None
    if force or passed(checks):
        release = run("publish", publish_release, night, head, shipped, refused)
        lookup = run("look up", measure_lookup, night, release, shipped)
    else:
        still = f"release {before.release} stays" if before else "there is no release yet"
        night.screen.say(f"[yellow]The gate refused this night:[/] {still}; --force would publish it and leave a trace")
    run("choose", choose_active, night, audit, shipped)
    summary = summarise(
        night,
        log,
        corpora,
        judgement,
        calibration,
        student,
        measured,
        [check.to_json() for check in checks],
        [check.to_json() for check in variants],
        head,
        release.release if release else None,
        force or passed(checks),
        lookup,
        run.seconds,
        online,
    )
    run("report", report_night, night, summary, student, head)
    collect_students(night, student, shipped)
    write_json(night.folder / "summary.json", summary)  # again: its seconds now hold the report's own
    return summary
