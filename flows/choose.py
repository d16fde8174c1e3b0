"""Stage: the active sample, which teaches most, behind the audit in their queue."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from evals.active import active_sample
from evals.item import Item
from evals.sample import Audit
from evals.suspects import suspects
from flows.night import Night
from flows.people import answers_of, verdicts_of
from flows.review import first_items, overlaps, places, queue_of
from flows.served import student_answers
from labels.records import Label
from labels.task import Task

ASKED_EACH = 4
"""The student is asked about so many labels for each that is to be chosen: the teacher's least sure ones."""
COMPARED = 20_000
"""So many labels at most are compared with one another for errors, the least sure first: it takes time."""


def choose_active(night: Night, audit: Audit, student: Path) -> int:
    """Put the active sample behind the audit in people's queue; returns how many labels it has."""
    review = night.settings.review
    if not review.active:
        return 0
    place = places(night)
    answered = {said.query for said in answers_of(night)} | set(night.gold)
    taken = {one.label.identity for one in audit.sampled} | {said.identity for said in verdicts_of(night)}
    taken |= {one.identity for one in night.labels if one.query in answered}
    unsure = _least_sure_first(night)
    answers = _student(night, student, [one.query for one in unsure if one.identity not in taken])
    chosen = active_sample(
        night.task,
        night.labels,
        traffic={query: traffic for query, (_, traffic) in place.items()},
        last=_earlier(night),
        student=answers,
        quality=suspects(night.task, unsure[:COMPARED], answers, night.settings.seed),
        known=_known(night),
        size=review.active,
        taken=taken,
    )
    active = [
        Item(
            one.label,
            "active",
            *place[one.label.query],
            reason="; ".join(one.reasons),
            overlap=overlaps(night, one.label),
        )
        for one in chosen
    ]
    queue_of(night).fill([*first_items(night, audit), *active], night.id)
    night.screen.say(f"  {len(active)} labels more chosen for people to look at, to learn from")
    return len(active)


def _least_sure_first(night: Night) -> list[Label]:
    """The accepted labels, those first that the teacher is least sure of."""
    accepted = [one for one in night.labels if one.status == "accepted"]
    return sorted(accepted, key=lambda one: (min(one.confidence.values(), default=1.0), one.identity))


def _student(night: Night, student: Path, queries: Sequence[str]) -> Mapping[str, Task]:
    """What the student says of the first of `queries`."""
    asked = sorted(queries[: ASKED_EACH * night.settings.review.active])
    given = student_answers(night, student, asked)[0] if asked else {}
    return {query: answer for query, answer in given.items() if answer is not None}


def _earlier(night: Night) -> dict[str, str]:
    """What the label before said, of queries that were labelled anew this night."""
    with night.warehouse.connect(verdicts=False) as con:
        rows = con.execute(
            """SELECT query, arg_max(value, created) FROM labels
               WHERE night < ? AND task = ? AND task_version = ? AND status = 'accepted'
                 AND query IN (SELECT query FROM labels WHERE night = ?)
               GROUP BY query""",
            [night.id, night.task.name, night.task.version(), night.id],
        ).fetchall()
    return dict(rows)


def _known(night: Night) -> dict[str, set[str]]:
    """By field the values of earlier nights' labels and of people's answers."""
    with night.warehouse.connect(verdicts=False) as con:
        rows = con.execute(
            "SELECT DISTINCT value FROM labels WHERE night < ? AND task = ? AND status = 'accepted'",
            [night.id, night.task.name],
        ).fetchall()
    known = defaultdict[str, set[str]](set)
    for value in [*(text for (text,) in rows), *(said.value for said in answers_of(night))]:
        for name, given in json.loads(value).items():
            known[name].update(given if isinstance(given, list) else [given])
    return known
