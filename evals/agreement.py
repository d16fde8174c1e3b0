"""Do reviewers agree with one another, and with the gold hidden among what they are asked?"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from evals.intervals import wilson
from labels.records import Verdict
from labels.task import Task

WHOLE = "label"
DOUBTFUL = 0.9
"""A reviewer surely under this is doubtful: gold items are chosen to be clear, and an audit that wants to tell a
precision of 0.95 from one of 0.9 cannot have more errors of the reviewer's than of the teacher's."""


@dataclass(frozen=True)
class Agreement:
    """Agreement beyond chance over the `labels` that two or more reviewers decided: 1 is full, 0 what chance gives.

    None where it is undefined: fewer than 2 labels, or one category only.
    """

    labels: int
    kappa: float | None
    alpha: float | None


@dataclass(frozen=True)
class ReviewerScore:
    """Hidden gold items a reviewer decided (`checked`) and answered as the gold (`right`); the share's 95% interval."""

    reviewer: str
    checked: int
    right: int
    low: float
    high: float
    doubtful: bool


def agreement(task: type[Task], verdicts: Sequence[Verdict]) -> dict[str, Agreement]:
    """The agreement between reviewers on each field of the task, and on the whole answer ("label").

    `verdicts` are all of them, in the order they were said: a reviewer's later one on a label replaces the earlier.
    "Can't tell" is missing data; simulated verdicts are left out unless there are no others. A category is a field's
    value, of a list its values whatever their order. Raises InputError where a value breaks the task's schema.
    """
    people = [verdict for verdict in verdicts if not verdict.simulated] or list(verdicts)
    by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
    for verdict in _latest(people):
        if verdict.decision != "cant_tell":
            by_label[verdict.identity].append(_categories(answer_of(task, verdict)))
    several = [said for said in by_label.values() if len(said) > 1]
    return {name: _agreement([[one[name] for one in said] for said in several]) for name in (*task.model_fields, WHOLE)}


def gold_scores(task: type[Task], verdicts: Sequence[Verdict], gold: Mapping[str, Task]) -> list[ReviewerScore]:
    """How each reviewer did on hidden gold items, by name; `gold` holds the right answer by query.

    The interval is Wilson's; `doubtful`: even its upper end is under DOUBTFUL. "Can't tell" and queries without gold
    are left out. Raises InputError where a value breaks the task's schema.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for verdict in _latest(verdicts):
        if verdict.part == "gold" and verdict.decision != "cant_tell" and verdict.query in gold:
            right[verdict.reviewer].append(answer_of(task, verdict).items() == gold[verdict.query].items())
    scores = []
    for reviewer, answers in sorted(right.items()):
        low, high = wilson(sum(answers), len(answers))
        scores.append(ReviewerScore(reviewer, len(answers), sum(answers), low, high, high < DOUBTFUL))
    return scores


def answer_of(task: type[Task], verdict: Verdict) -> Task:
    """The right answer, says the verdict: its value, or the draft it found right."""
    return task.parse(verdict.value or verdict.draft or "{}")


def _latest(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """A reviewer's last verdict on each label, in the place of their first."""
    return list({(verdict.identity, verdict.reviewer): verdict for verdict in verdicts}.values())


def _categories(answer: Task) -> dict[str, str]:
    """Each field's value as text, and the whole answer's."""
    values: dict[str, list[str]] = {name: [] for name in type(answer).model_fields}
    for name, item in sorted(answer.items()):
        values[name].append(item)
    return {name: repr(items) for name, items in values.items()} | {WHOLE: repr(values)}


def _agreement(said: Sequence[Sequence[str]]) -> Agreement:
    """Cohen's kappa (1960, Educ. Psychol. Meas. 20:37-46) of each label's first two reviewers, by scikit-learn;

    Krippendorff's alpha (2004, Content Analysis, ch. 11; nominal) of all of them, by the krippendorff library.
    """
    if len(said) < 2:
        return Agreement(len(said), None, None)
    first, second = [one[0] for one in said], [one[1] for one in said]
    kappa = alpha = None
    if len({*first, *second}) > 1:
        from sklearn.metrics import cohen_kappa_score

        kappa = float(cohen_kappa_score(first, second))
    if len(categories := sorted(set(chain.from_iterable(said)))) > 1:
        import krippendorff

        counts = np.array([[Counter(one)[category] for category in categories] for one in said])
        alpha = float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
    return Agreement(len(said), kappa, alpha)
