"""The review page and what surrounds it: reviewers' links, how far they are, and exchange with other tools."""

import getpass
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from rich.console import Console
from rich.markup import escape

from evals.exchange.argilla import argilla_records, argilla_settings
from evals.exchange.jsonl import jsonl
from evals.exchange.label_studio import label_studio_config, label_studio_tasks
from evals.exchange.read import read_verdicts
from evals.judge import more_verdicts
from evals.page.app import create_app
from evals.page.guard import LOOPBACK
from evals.page.sign_in import SignIn
from evals.queue import ReviewQueue
from flows.corrections import Corrections
from flows.night import Night
from flows.people import reviewers_json
from flows.review import AUDIT, held_audit, judgement_of, queue_of
from flows.screen import Screen
from flows.settings import Settings
from labels.errors import InputError, SettingsError
from labels.files import write_text

SECRET = "STILLHOUSE_REVIEW_SECRET"  # noqa: S105 - the name of a variable
SHORTEST = 16


def drawn_nights(settings: Settings) -> list[str]:
    """The nights that drew a sample, the latest last."""
    return sorted(path.parent.name for path in (settings.folder / "nights").glob(f"*/{AUDIT}"))


def last_night(settings: Settings) -> Night:
    """The last night that drew a sample. Raises InputError where none did."""
    drawn = drawn_nights(settings)
    if not drawn:
        raise InputError(f"nothing to review under {settings.folder} yet; run `make demo`, or `stillhouse night`")
    return Night(drawn[-1], settings, Screen())


def sign_in_of(settings: Settings) -> SignIn:
    """Signs reviewers' links: with the environment's secret, else with one made once and kept in the work folder."""
    secret = os.environ.get(SECRET) or _kept_secret(settings.folder / "review" / "secret")
    if len(secret) < SHORTEST:
        raise SettingsError(
            f"the secret that signs reviewers' links has {len(secret)} characters; wanted {SHORTEST} or more in {SECRET}, "
            f"or delete {settings.folder / 'review' / 'secret'} for a new one"
        )
    return SignIn(secret.encode(), reviewers_of(settings), settings.review.link_days)


def reviewers_of(settings: Settings) -> list[str]:
    """Who may review: those named in the settings; nobody named, who runs this."""
    if settings.review.reviewers:
        return settings.review.reviewers
    try:
        return [getpass.getuser()]
    except (KeyError, OSError):  # a user id without a name, as in a container
        return ["reviewer"]


def links(settings: Settings) -> list[dict[str, str]]:
    """Every reviewer's own link to the page at the address in the settings."""
    sign_in, base = sign_in_of(settings), settings.review.address
    return [
        {"reviewer": name, "link": f"{base}/sign-in?token={sign_in.token(name)}"} for name in reviewers_of(settings)
    ]


def review_app(settings: Settings) -> FastAPI:
    """The page over the last night's queue; what is said there is in the cache at once. Raises InputError where no night
    drew a sample.
    """
    night = last_night(settings)
    corrections = Corrections(night, _warn)
    corrections()  # what was said while no Redis ran
    named = [urlsplit(settings.review.address).hostname, settings.review.host, settings.serve.host]
    hosts = [*LOOPBACK, *(f"[{name}]" if ":" in name else name for name in named if name)]
    return create_app(ReviewQueue(night.warehouse.said, on_change=corrections), night.task, sign_in_of(settings), hosts)


def serve_review(settings: Settings, run: Callable[[Callable[[], FastAPI], str, int], None]) -> None:
    """Print each reviewer's link, and serve the page until stopped."""
    app = review_app(settings)
    console = Console(stderr=True, highlight=False)
    for one in links(settings):  # whoever has a link signs in by it
        console.print(f"{one['reviewer']} reviews at {one['link']}", soft_wrap=True)
    run(lambda: app, settings.review.host, settings.review.port)


def status(settings: Settings) -> dict[str, Any]:
    """How far people are, what their verdicts say so far of the teacher, and how well they agree."""
    night = last_night(settings)
    queue, threshold = queue_of(night), settings.gate.teacher_precision
    progress = queue.progress()
    judgement = judgement_of(night, held_audit(night))
    found: dict[str, Any] = {"night": night.id}
    shown = {part: wanted for part, wanted in sorted(progress.wanted.items()) if part != "gold"}
    found |= {part: f"{progress.done[part]:,} of {wanted:,} verdicts" for part, wanted in shown.items()}
    found["left"] = f"{progress.left:,} verdicts, about {progress.minutes_left:.0f} minutes for one reviewer"
    if judgement is None:
        return found | {"teacher": "no verdicts yet"}
    figures = f"{judgement.precision:.1%} right (95%: {judgement.low:.1%} to {judgement.high:.1%})"
    simulated = "simulated " if judgement.simulated else ""
    found["teacher"] = f"{figures} by {judgement.verdicts:,} {simulated}verdicts"
    more = more_verdicts(judgement, threshold)
    if more is None:
        found["gate"] = f"wants {threshold:.1%}, more than the estimate: no number of verdicts would do"
    elif more:
        found["gate"] = f"wants {threshold:.1%}: {more:,} more verdicts at this rate would do"
    else:
        found["gate"] = f"passes its {threshold:.1%}"
    return found | reviewers_json(night)


def export(settings: Settings, file: Path, format_: str) -> str:
    """Write what people are asked and what they said so far to `file`, for another tool; what was done, in words.

    Raises SettingsError for an unknown format.
    """
    beside: dict[str, tuple[str, Callable[[], str]]] = {
        "label-studio": (".config.xml", lambda: label_studio_config(night.task)),
        "argilla": (".settings.json", lambda: _json(argilla_settings(night.task))),
    }
    writers: dict[str, Callable[[], str]] = {
        "jsonl": lambda: jsonl(items, said),
        "label-studio": lambda: _json(label_studio_tasks(night.task, items, said)),
        "argilla": lambda: _json(argilla_records(night.task, items, said)),
    }
    if format_ not in writers:
        raise SettingsError(f"--format {format_}: wanted one of {', '.join(writers)}")
    night = last_night(settings)
    items = queue_of(night).items()
    asked = {one.label.identity for one in items}
    said = [one for one in night.warehouse.said.all() if one.identity in asked]
    write_text(file, writers[format_]())
    words = f"{len(items):,} labels with {len(said):,} verdicts in {file}"
    if format_ in beside:
        ending, text = beside[format_]
        write_text(setup := file.with_name(file.name + ending), text())
        words += f"; how the tool is to show them: {setup}"
    return words


def take_in(settings: Settings, file: Path) -> tuple[int, list[str]]:
    """Take the verdicts in a file that another tool wrote: how many were new, and what could not be taken, in words."""
    night = last_night(settings)
    items = {one.label.identity: one for one in queue_of(night).items(closed=True)}
    read = read_verdicts(file, items, night.task)
    held = {one.id for one in night.warehouse.said.all()}
    new = [one for one in read.verdicts if one.id not in held]
    queue_of(night).add(new)
    Corrections(night, _warn).bring()
    return len(new), [f"{one.where}: {one.text}" for one in read.problems]


def _warn(text: str) -> None:
    Console(stderr=True, highlight=False).print(f"[yellow]the cache:[/] {escape(text)}", soft_wrap=True)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _kept_secret(path: Path) -> str:
    """The secret in `path`, made there at the first use, for its owner's eyes alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8") as file:  # for its owner alone
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process made it meanwhile
                os.link(file.name, path)
    return path.read_text(encoding="utf-8")
