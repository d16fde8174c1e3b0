"""What a file says of a label, checked against the label: a verdict, or a problem that is told and counted."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, get_args

from pydantic import ValidationError

from evals.item import Item
from labels.errors import InputError
from labels.files import digest
from labels.records import Decision, Verdict, now
from labels.task import Task

Kind = Literal[
    "unreadable",
    "unknown label",
    "other task version",
    "breaks the schema",
    "contradicts itself",
    "no verdict",
    "duplicate",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where in the file: "line 3, verdict 1", "record 12, annotation 40"."""

    kind: Kind
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True, slots=True)
class Imported:
    """The good verdicts of a file, in its order, and every problem. Of a duplicate the later verdict is among the good."""

    verdicts: tuple[Verdict, ...]
    problems: tuple[Problem, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many problems there are of each kind, the most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())


def unreadable(where: str, error: ValidationError) -> Problem:
    """What is wrong with a record's form: the first thing that pydantic found."""
    first = error.errors(include_url=False)[0]
    return Problem("unreadable", where, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


def verdict_id(tool: str, identity: str, author: str, verdict: Verdict, when: str) -> str:
    """The id of a verdict from a tool: the same file read twice gives the same; a later change of mind another.

    `author` is the tool's id of the annotation or user, `when` the tool's time of it ("" where it tells none).
    """
    return digest(tool, identity, author, verdict.decision, verdict.value, verdict.note, when)


def checked(
    where: str, verdict: Verdict, version: str, items: Mapping[str, Item], task: type[Task]
) -> Verdict | Problem:
    """The verdict with its value in normal form, or what is wrong with it.

    `version` is the task's version that the file names, "" where it names none: then it is the label's.
    """
    item = items.get(verdict.identity)
    if item is None:
        text = f"label {verdict.identity!r} ({verdict.query!r}) is none of the {len(items):,} asked about"
        return Problem("unknown label", where, text)
    version = version or item.label.task_version
    if version != task.version():
        text = f"wanted {task.name} version {task.version()}, got version {version}; ask about this query again"
        return Problem("other task version", where, text)
    if verdict.decision not in get_args(Decision):
        wanted = ", ".join(get_args(Decision))
        return Problem("no verdict", where, f"wanted one of the decisions {wanted}, got {verdict.decision!r}")
    seconds = verdict.seconds if 0 <= verdict.seconds < math.inf else 0.0
    reviewer, note, created = _sound(verdict.reviewer), _sound(verdict.note), moment(verdict.created)
    label = item.label
    if verdict.query != label.query:
        text = f"names the query {verdict.query!r}, but label {verdict.identity!r} is of {label.query!r}"
        return Problem("contradicts itself", where, text)
    verdict = replace(verdict, reviewer=reviewer, note=note, seconds=seconds, created=created)
    verdict = replace(verdict, task=label.task, task_version=label.task_version, part=item.part, draft=label.value)
    if verdict.decision == "cant_tell":
        return replace(verdict, value=None)
    try:
        answer = task.parse(verdict.value or "null")
    except InputError as error:
        return Problem("breaks the schema", where, f"the answer for {verdict.query!r}: {error}")
    verdict = replace(verdict, value=answer.to_json())
    return _consistent(where, verdict, answer, task)


def _consistent(where: str, verdict: Verdict, answer: Task, task: type[Task]) -> Verdict | Problem:
    """Right is the draft as it was, corrected is not: else nobody knows which of the two was meant."""
    if verdict.draft is None:
        return verdict
    same = answer.items() == task.parse(verdict.draft).items()
    if same == (verdict.decision == "right"):
        return replace(verdict, value=verdict.draft) if same else verdict
    text = "says right, but the answer was changed" if not same else "says corrected, but the answer is the draft's"
    return Problem("contradicts itself", where, f"{text}: {verdict.draft} and {verdict.value}; decide again")


def moment(when: str) -> str:
    """A tool's time as ours: UTC, to the microsecond; the present where it is none."""
    try:
        found = datetime.fromisoformat(when)
    except ValueError:
        return now()
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="microseconds")


def _sound(text: str) -> str:
    """Text that SQLite takes: without halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode("utf-8")
