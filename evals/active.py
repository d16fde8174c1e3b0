"""The active sample: labels worth asking people about, to learn from. It says nothing of how good the labels are.

Several sources each name labels and say why; they take turns, so that none starves another. The audit (evals/sample.py)
is drawn apart from it, by chance.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from labels.guardrails import Length, Margin, margins
from labels.records import Label
from labels.task import Task

UNSURE = 0.9
"""A field below this confidence is one the teacher is not sure of."""
NARROW = 0.2
"""A guardrail passed by less than this share of the room above its threshold is passed narrowly."""
SUSPECT = 0.5
"""A label below this quality (evals/suspects.py) is contradicted."""

Why = dict[str, tuple[float, str]]
"""What a source says: by a label's identity how strongly it wants it asked (above 0 to 1), and why."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A label chosen for review, every reason in words, and the strongest source's strength (above 0 to 1)."""

    label: Label
    reasons: tuple[str, ...]
    score: float


def active_sample(
    task: type[Task],
    labels: Sequence[Label],
    *,
    traffic: Mapping[str, float],
    last: Mapping[str, str],
    student: Mapping[str, Task],
    quality: Mapping[str, float],
    known: Mapping[str, Collection[str]],
    size: int,
    taken: Collection[str],
) -> list[Chosen]:
    """Choose at most `size` accepted labels worth asking about, in the order to ask; fewer where fewer stand out.

    By query: `traffic` (events; 0 where it is missing), `last` (the answer of an earlier night, as the task's JSON),
    `student` (the student's answer). By identity: `quality` (of evals/suspects.py, 0 to 1). `known`: by field the values
    earlier labels or verified answers have; of a field without any, none is new. `taken`: identities not to choose, those
    of the audit or with a verdict. The order of `labels` does not matter. Raises ValueError on a negative size, InputError
    where an answer breaks the task's schema.
    """
    if size < 0:
        raise ValueError(f"the sample's size must be 0 or more, got {size}")
    left_out = set(taken)
    there = {one.identity: one for one in labels if one.status == "accepted" and one.identity not in left_out}
    ordered = [there[identity] for identity in sorted(there)]
    answers = {one.identity: task.parse(one.value or "") for one in ordered}
    earlier = {one.query: task.parse(last[one.query]) for one in ordered if one.query in last}
    sources = [
        _unsure(ordered),
        _otherwise(ordered, answers, student, "the student answers otherwise"),
        _otherwise(ordered, answers, earlier, "an earlier night answered otherwise"),
        _new(answers, known),
        _narrow(ordered, answers),
        _suspect(answers, quality),
    ]
    weight = {one.identity: 1 + math.log1p(traffic.get(one.query, 0.0)) for one in ordered}
    chosen = []
    for identity in _by_turns(sources, weight, size):
        said = [source[identity] for source in sources if identity in source]
        reasons = tuple(reason for _, reason in said)
        chosen.append(Chosen(there[identity], reasons, round(max(strength for strength, _ in said), 4)))
    return chosen


def _by_turns(sources: Iterable[Why], weight: Mapping[str, float], size: int) -> list[str]:
    """The identities, each source giving in its turn the next it wants most, by strength times the query's weight."""
    queues = [_queue(source, weight) for source in sources]
    picked: dict[str, None] = {}
    while queues and len(picked) < size:
        queue = queues.pop(0)
        wanted = next((identity for identity in queue if identity not in picked), None)
        if wanted is not None:
            picked[wanted] = None
            queues.append(queue)
    return list(picked)


def _queue(source: Why, weight: Mapping[str, float]) -> Iterator[str]:
    return iter(sorted(source, key=lambda identity: (-source[identity][0] * weight[identity], identity)))


def _unsure(labels: Sequence[Label]) -> Why:
    found: Why = {}
    for label in labels:
        field, least = min(label.confidence.items(), key=lambda pair: pair[1], default=("", 1.0))
        if least < UNSURE:
            found[label.identity] = (1 - least, f"least sure of {field} ({least:.2f})")
    return found


def _otherwise(labels: Sequence[Label], answers: Mapping[str, Task], others: Mapping[str, Task], words: str) -> Why:
    """Strong where few of the values either gives are given by both."""
    found: Why = {}
    for label in labels:
        if label.query in others:
            own, other = answers[label.identity], others[label.query]
            differing = own.items() ^ other.items()
            if differing:
                strength = len(differing) / len(own.items() | other.items())
                fields = [name for name in type(own).model_fields if any(name == field for field, _ in differing)]
                found[label.identity] = (strength, f"{words}: {', '.join(_said(other, name) for name in fields)}")
    return found


def _said(answer: Task, field: str) -> str:
    """`brand 'acme'`, `no brand`, `attributes 'gluten free' and 'organic'`."""
    values = sorted(value for name, value in answer.items() if name == field)
    return f"{field} {' and '.join(map(repr, values))}" if values else f"no {field}"


def _new(answers: Mapping[str, Task], known: Mapping[str, Collection[str]]) -> Why:
    seen = {field: set(values) for field, values in known.items() if values}
    found: Why = {}
    for identity, answer in answers.items():
        fresh = sorted((name, value) for name, value in answer.items() if name in seen and value not in seen[name])
        if fresh:
            found[identity] = (1.0, ", ".join(f"new {name} {value!r}" for name, value in fresh))
    return found


def _narrow(labels: Sequence[Label], answers: Mapping[str, Task]) -> Why:
    passed = margins(
        [answers[one.identity] for one in labels], [one.query for one in labels], [one.facts for one in labels]
    )
    return {
        label.identity: (1 - max(margin.share, 0.0), _in_words(margin))
        for label, margin in zip(labels, passed, strict=True)
        if margin and margin.share < NARROW
    }


def _in_words(margin: Margin) -> str:
    what = f"{margin.field} {margin.value!r}"
    if margin.guardrail == Length.name:
        return f"{what} has {margin.figure:.0f} characters, may have {margin.threshold:.0f}"
    return f"{what} is {margin.guardrail} {margin.figure:.2f}, needs {margin.threshold:.2f}"


def _suspect(identities: Iterable[str], quality: Mapping[str, float]) -> Why:
    return {
        identity: (
            1 - quality[identity],
            f"other labels or the student contradict it (quality {quality[identity]:.2f})",
        )
        for identity in identities
        if quality.get(identity, 1.0) < SUSPECT
    }
