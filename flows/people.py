"""What people said so far, as tonight's task takes it: their answers, and which of these measure instead of training."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from evals.agreement import agreement, gold_scores
from evals.gate import LEAST
from flows.night import Night
from labels.files import digest
from labels.records import Decision, Label, Verdict
from labels.split import split_of
from labels.task import Task
from labels.verdicts import settle, verdict_of
from student.near import near_duplicates

LEAST_GOLD = LEAST
"""Verified test queries of a night's tail from which on they stand in for a gold file."""
AGREEMENT_QUERIES = 1000


def verdicts_of(night: Night) -> list[Verdict]:
    """The verdict that counts of each label, oldest first, of this task as it is now; simulated ones in the demo alone."""
    return _counting(night, night.warehouse.verdicts())


def answers_of(night: Night) -> list[Verdict]:
    """The latest verdict with an answer on each query, whatever label of it was judged; a person's before any simulated."""
    return list(_answers(verdicts_of(night)).values())


def answer_to(night: Night, queries: Iterable[str]) -> list[Verdict]:
    """The same for a few queries, without reading what was said of all the others."""
    sql = "SELECT * FROM verdicts WHERE query = ? AND withdrawn IS NULL ORDER BY created, rowid"
    said = [verdict_of(row) for query in queries for row in night.warehouse.said.read(sql, (query,))]
    return list(_answers(_counting(night, settle(said))).values())


def verdicts_on(night: Night, labels: Iterable[Label]) -> list[Verdict]:
    """The verdicts on these labels. One that nobody saw, of a query that people answered, is judged by that answer."""
    verdicts = verdicts_of(night)
    said, answers = {one.identity: one for one in verdicts}, _answers(verdicts)
    found = []
    for label in labels:
        if verdict := said.get(label.identity):
            found.append(verdict)
        elif (answer := answers.get(label.query)) and label.value:
            same = night.task.parse(label.value).items() == night.task.parse(str(answer.value)).items()
            decision: Decision = "right" if same else "corrected"
            found.append(replace(answer, identity=label.identity, draft=label.value, decision=decision))
    return found


def _counting(night: Night, settled: Iterable[Verdict]) -> list[Verdict]:
    """Those of the task as it is now; simulated ones in the demo alone."""
    ours, simulated = (night.task.name, night.task.version()), night.settings.review.simulated
    return [one for one in settled if (one.task, one.task_version) == ours and (simulated or not one.simulated)]


def _answers(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    """By query the verdict that answers it."""
    ordered = sorted(verdicts, key=lambda said: (not said.simulated, said.created))
    return {said.query: said for said in ordered if said.decision != "cant_tell" and said.value}


def held_out(night: Night) -> set[str]:
    """The queries that measure and so may never train nor be shown as examples: gold, and all that people ever judged
    of the dev and test split, under whatever task and even if taken back.
    """
    judged = {row["query"] for row in night.warehouse.said.read("SELECT DISTINCT query FROM verdicts")}
    return set(night.gold) | {query for query in judged if split_of(query) != "train"}


def measuring(night: Night) -> set[str]:
    """Once there are labels: what is held out, and where no gold is of tonight's log the labels a student is compared on."""
    found = not night.gold.keys().isdisjoint(night.queries()["query"].to_pylist())
    return held_out(night) | (set() if found else set(agreement_queries(night)))


def agreement_queries(night: Night) -> list[str]:
    """Without gold: accepted labels' queries outside the head, of the test split, to compare student and teacher on."""
    table = night.queries()
    bands = dict(zip(table["query"].to_pylist(), table["band"].to_pylist(), strict=True))
    tail = [one.query for one in night.labels if one.status == "accepted" and bands[one.query] != "head"]
    test = [query for query in tail if split_of(query) == "test"]
    return sorted(test, key=lambda query: digest("agreement", query))[:AGREEMENT_QUERIES]


def gold_of(night: Night, trained: Sequence[str], tail: Container[str]) -> dict[str, Task]:
    """What student and teacher are measured by: the gold file; where none is given, what people verified of the test
    split, once that is LEAST_GOLD queries of tonight's `tail`.

    People may verify a query after its label `trained` the student: such a one, or one near it, does not measure.
    """
    if night.gold:
        return night.gold
    verified = {said.query: str(said.value) for said in answers_of(night) if split_of(said.query) == "test"}
    near = near_duplicates(list(verified), trained)
    clean = [query for query, close in zip(verified, near, strict=True) if not close]
    if sum(query in tail for query in clean) < LEAST_GOLD:
        return {}
    return {query: night.task.parse(verified[query]) for query in clean}


def reviewers_json(night: Night) -> dict[str, Any]:
    """Agreement between reviewers by field, and how each did on hidden gold items."""
    ours = (night.task.name, night.task.version())
    said = [one for one in night.warehouse.said.all() if (one.task, one.task_version) == ours]
    return {
        "agreement": {name: asdict(found) for name, found in agreement(night.task, said).items() if found.labels},
        "reviewers": [asdict(one) for one in gold_scores(night.task, said, night.gold)],
    }
