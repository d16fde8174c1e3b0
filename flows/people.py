"""What people said so far, as tonight's task takes it: their answers, and which of these measure instead of training."""

from dataclasses import asdict
from typing import Any

from evals.agreement import agreement, gold_scores
from flows.night import Night
from labels.records import Verdict
from labels.split import split_of
from labels.task import Task

LEAST_GOLD = 30
"""Verified test queries from which on they stand in for a gold file."""


def verdicts_of(night: Night) -> list[Verdict]:
    """The verdict that counts of each label, oldest first, of this task as it is now; simulated ones in the demo alone."""
    ours = (night.task.name, night.task.version())
    return [
        said
        for said in night.warehouse.verdicts()
        if (said.task, said.task_version) == ours and (night.settings.review.simulated or not said.simulated)
    ]


def answers_of(night: Night) -> list[Verdict]:
    """The latest verdict with an answer on each query, whatever label of it was judged: a person outranks them all."""
    latest = {said.query: said for said in verdicts_of(night) if said.decision != "cant_tell" and said.value}
    return list(latest.values())


def held_out(night: Night) -> set[str]:
    """The queries that measure and so may never train nor be shown as examples: gold, and people's by their split."""
    return set(night.gold) | {said.query for said in answers_of(night) if split_of(said.query) != "train"}


def gold_of(night: Night) -> dict[str, Task]:
    """What student and teacher are measured by: the gold file; where none is given, what people verified of the test
    split, once that is LEAST_GOLD queries.
    """
    if night.gold:
        return night.gold
    verified = [said for said in answers_of(night) if split_of(said.query) == "test"]
    return {said.query: night.task.parse(str(said.value)) for said in verified} if len(verified) >= LEAST_GOLD else {}


def reviewers_json(night: Night) -> dict[str, Any]:
    """Agreement between reviewers by field, and how each did on hidden gold items."""
    said = night.warehouse.said.all()
    return {
        "agreement": {name: asdict(found) for name, found in agreement(night.task, said).items() if found.labels},
        "reviewers": [asdict(one) for one in gold_scores(night.task, said, night.gold)],
    }
