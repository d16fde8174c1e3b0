"""Waiting for people: a scheduled night is suspended by Prefect and its process ends; one at a terminal waits where it is.

Either goes on once the verdicts let the gate's judgement through, or nothing is left to review, or at the deadline.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
from rich.markup import escape

from evals.judge import judge
from evals.sample import Audit
from flows.night import Night
from flows.people import verdicts_of
from flows.review import held_audit
from flows.screen import Screen
from flows.settings import Settings
from labels.files import read_json, write_json

LOOK_SECONDS = 2.0
GIVE_UP_SECONDS = 10.0
GRACE_SECONDS = 86_400
"""For so long after the deadline Prefect still resumes a suspended night, where the scheduler was down at it."""


def reviewed(night: Night, audit: Audit) -> bool:
    """Whether waiting longer changes nothing: the judgement passes the gate, or all that was asked is answered."""
    judgement = judge(audit, verdicts_of(night), night.task)
    if judgement is None:
        return not audit.sampled
    return judgement.low >= night.settings.gate.teacher_precision or judgement.unreviewed == 0


def wait_here(night: Night, audit: Audit) -> None:
    """Return when people have reviewed enough, or at the deadline."""
    until = _deadline(night)
    if reviewed(night, audit):
        return
    night.screen.say(f"  {_invitation(night, until)} (stillhouse review serves it)")
    with night.screen.waiting("waiting for people"):
        while datetime.now(UTC) < until and not reviewed(night, audit):
            time.sleep(LOOK_SECONDS)


def suspend(night: Night, audit: Audit) -> None:
    """Suspend the flow run, unless people have reviewed enough; `resume_when_reviewed` makes it go on.

    Prefect then runs the flow again from its beginning, where all that was done is found done; the second call returns.
    """
    from prefect.artifacts import create_markdown_artifact
    from prefect.flow_runs import suspend_flow_run
    from prefect.runtime import flow_run

    file = waiting_file(night.settings)
    if (read_json(file) or {}).get("flow_run") == str(flow_run.id):
        file.unlink()
        return
    if reviewed(night, audit):
        return
    until = _deadline(night)
    write_json(file, {"flow_run": str(flow_run.id), "night": night.id, "until": until.isoformat()})
    said = _invitation(night, until)
    create_markdown_artifact(f"[{said}]({night.settings.review.address})", key="people", description=said)
    night.screen.say(f"  suspended: {said}")
    suspend_flow_run(timeout=int(night.settings.review.wait_seconds or 0) + GRACE_SECONDS)


@contextmanager
def resuming(settings: Settings) -> Iterator[None]:
    """Resume suspended nights for as long as the block lasts."""
    stop = threading.Event()
    thread = threading.Thread(target=resume_when_reviewed, args=(settings, Screen(), stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(GIVE_UP_SECONDS)


def resume_when_reviewed(settings: Settings, screen: Screen, stop: threading.Event) -> None:
    """Resume the suspended night when it is time to, until `stop` is set. Runs beside the scheduler, in a thread."""
    from prefect.exceptions import NotPausedError, PrefectException
    from prefect.flow_runs import resume_flow_run

    told = ""
    while not stop.wait(LOOK_SECONDS):
        waits = read_json(waiting_file(settings))
        if not waits or waits.get("resumed") or not _is_time(settings, waits):
            continue
        try:
            resume_flow_run(UUID(waits["flow_run"]))
        except NotPausedError:  # it is about to be
            continue
        except (PrefectException, httpx.HTTPError, RuntimeError) as error:  # a server that is away comes back
            if str(error) != told:
                screen.say(f"[yellow]the waiting night could not be resumed, trying again:[/] {escape(str(error))}")
            told = str(error)
            continue
        write_json(waiting_file(settings), waits | {"resumed": True})
        screen.say("enough was reviewed, or it is time: the night goes on")


def waiting_file(settings: Settings) -> Path:
    """What says that a scheduled night waits for people, and until when."""
    return settings.folder / "review" / "waiting.json"


def _is_time(settings: Settings, waits: dict[str, str]) -> bool:
    night = Night(waits["night"], settings, Screen())
    return datetime.now(UTC) >= datetime.fromisoformat(waits["until"]) or reviewed(night, held_audit(night))


def _deadline(night: Night) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=night.settings.review.wait_seconds or 0)


def _invitation(night: Night, until: datetime) -> str:
    return f"people review at {night.settings.review.address} until {until:%Y-%m-%d %H:%M} UTC"
