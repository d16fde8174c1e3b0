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

from rich.markup import escape

from evals.sample import Audit
from flows.night import Night
from flows.review import held_audit, judgement_of
from flows.screen import Screen
from flows.settings import Settings
from labels.files import read_json, write_json

LOOK_SECONDS = 2.0
GIVE_UP_SECONDS = 10.0
GRACE_SECONDS = 86_400
"""For so long after the deadline Prefect still resumes a suspended night, where the scheduler was down at it."""


def reviewed(night: Night, audit: Audit) -> bool:
    """Whether people have reviewed enough: all that was asked, or at least half, and that passes the gate.

    Half, since an interval looked at after every verdict until it happens to pass would promise less than it says.
    """
    judgement = judgement_of(night, audit)
    if judgement is None or judgement.unreviewed == 0:
        return judgement is not None or not audit.sampled
    enough = 2 * judgement.unreviewed <= len(audit.sampled) and not judgement.missing
    return enough and judgement.low >= night.settings.gate.teacher_precision


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

    Prefect then runs the flow again from its beginning, as the same night (`waiting_night`), where all that was done is
    found done; the second call returns.
    """
    from prefect.artifacts import create_markdown_artifact
    from prefect.flow_runs import suspend_flow_run
    from prefect.runtime import flow_run

    file = waiting_file(night.settings, str(flow_run.id))
    if file.exists():
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
    from prefect.exceptions import NotPausedError
    from prefect.flow_runs import resume_flow_run

    told, audits, resumed = "", dict[str, Audit](), set[Path]()
    while not stop.wait(LOOK_SECONDS):
        for file in waiting_file(settings, "*").parent.glob("*.json"):
            waits = read_json(file)
            try:
                if waits is None or file in resumed or not _is_time(settings, waits, audits):
                    continue
                resume_flow_run(UUID(waits["flow_run"]))
                resumed.add(file)  # the file is the night's alone, which removes it as soon as it runs again
                screen.say("enough was reviewed, or it is time: the night goes on")
            except NotPausedError:  # it is about to be
                continue
            except Exception as error:
                # Said, and tried again: a server or a disk that is away comes back, and nobody else would resume it.
                if str(error) != told:
                    screen.say(f"[yellow]a waiting night can't be resumed, trying again:[/] {escape(str(error))}")
                told = str(error)


def waiting_file(settings: Settings, flow_run: str) -> Path:
    """What says that a scheduled night, run as this Prefect flow run, waits for people, and until when."""
    return settings.folder / "review" / "waiting" / f"{flow_run}.json"


def waiting_night(settings: Settings) -> str | None:
    """The id of the night that this flow run began before it was suspended; None where it begins."""
    from prefect.runtime import flow_run

    return (read_json(waiting_file(settings, str(flow_run.id))) or {}).get("night")


def _is_time(settings: Settings, waits: dict[str, str], audits: dict[str, Audit]) -> bool:
    """Whether the night that waits is to go on; its audit is read once."""
    if datetime.now(UTC) >= datetime.fromisoformat(waits["until"]):
        return True
    night = Night(waits["night"], settings, Screen())
    audits[night.id] = audits.get(night.id) or held_audit(night)
    return reviewed(night, audits[night.id])


def _deadline(night: Night) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=night.settings.review.wait_seconds or 0)


def _invitation(night: Night, until: datetime) -> str:
    return f"people review at {night.settings.review.address} until {until:%Y-%m-%d %H:%M} UTC"
