"""From a form to an answer: the values in normal form, checked against the task, doubted by the guardrails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from evals.item import Item
from labels.errors import InputError
from labels.guardrails import Grounded, InTaxonomy, Length, Rejection, Similar, check_all
from labels.normalise import normalise
from labels.records import Decision
from labels.task import MAX_ITEMS, Task

MOST_NOTE = 1000
DOUBTS = {
    Grounded.name: "“{}” stands neither in the query nor in the facts.",
    InTaxonomy.name: "“{}” is not one of the allowed values.",
    Similar.name: "“{}” is far from the query in meaning.",
    Length.name: "“{}” is longer than a value here should be.",
}


class AnswerError(InputError):
    """An answer that was not taken. `fields` says why at each field; with `sure` it is taken when sent once more."""

    def __init__(self, message: str, fields: Mapping[str, str], sure: str = "") -> None:
        super().__init__(message)
        self.fields, self.sure = dict(fields), sure


@dataclass(frozen=True, slots=True)
class Answer:
    """What `ReviewQueue.submit` wants to know."""

    decision: Decision
    value: str | None


def read_answer(
    task: type[Task], item: Item, decision: str, typed: Mapping[str, Sequence[str]], note: str, sure: str
) -> Answer:
    """The answer that a reviewer gave on `item`. A correction that says what the draft says is "right".

    `sure` is the value (JSON) that a reviewer was warned of and sends again. Raises AnswerError where the answer breaks
    the schema or a guardrail doubts it.
    """
    if decision not in get_args(Decision):
        raise AnswerError(f"Not saved: wanted right, corrected or cant_tell, got {decision!r}", {})
    if len(note) > MOST_NOTE:
        raise AnswerError(f"Not saved: a note has at most {MOST_NOTE} characters; this one has {len(note)}.", {})
    if decision == "cant_tell":
        return Answer("cant_tell", None)
    draft = _draft(task, item)
    if decision == "right":
        if draft is None:
            raise AnswerError("Not saved: there is no answer to accept. Correct it, or say you can't tell.", {})
        return Answer("right", draft.to_json())
    answer = _corrected(task, item.label.query, typed)
    if draft is not None and answer.items() == draft.items():
        return Answer("right", draft.to_json())
    if sure != answer.to_json() and (doubts := _doubts(answer, item)):
        raise AnswerError("Not saved yet. Look at what is marked; save again if it is right.", doubts, answer.to_json())
    return Answer("corrected", answer.to_json())


def _draft(task: type[Task], item: Item) -> Task | None:
    try:
        return None if item.label.value is None else task.parse(item.label.value)
    except InputError:  # the task changed since
        return None


def _corrected(task: type[Task], query: str, typed: Mapping[str, Sequence[str]]) -> Task:
    """The typed values as an answer, lists in the query's order: reviewers who mean the same write the same."""
    values: dict[str, Any] = {}
    problems = {}
    for name in task.model_fields:
        held = list(dict.fromkeys(filter(None, map(normalise, typed.get(name, ())))))
        if len(held) > (MAX_ITEMS if task.is_list(name) else 1):
            problems[name] = f"At most {MAX_ITEMS} values." if task.is_list(name) else "One value only."
        values[name] = sorted(held, key=lambda one: _place(query, one)) if task.is_list(name) else "".join(held[:1])
    try:
        answer = task.model_validate(values, strict=True).normalised()
    except ValidationError as error:
        for one in error.errors(include_url=False):
            problems.setdefault(str(one["loc"][0]) if one["loc"] else "", f"{one['msg']}.")
    if problems:
        raise AnswerError("Not saved: " + " ".join(f"{name}: {why}" for name, why in problems.items()), problems)
    return answer


def _place(query: str, value: str) -> tuple[int, str]:
    at = f" {query} ".find(f" {value} ")
    return (at if at >= 0 else len(query) + 1, value)


def _doubts(answer: Task, item: Item) -> dict[str, str]:
    """What a guardrail would say, by field. (`check_all` names one field an answer, so each field is one.)"""
    task = type(answer)
    empty: dict[str, Any] = {name: [] if task.is_list(name) else "" for name in task.model_fields}
    alone = [task.model_construct(**empty | {name: getattr(answer, name)}) for name in task.model_fields]
    found = check_all(alone, [item.label.query] * len(alone), [item.label.facts] * len(alone))
    return {rejection.field: _words(rejection) for rejection in found if rejection}


def _words(rejection: Rejection) -> str:
    return DOUBTS[rejection.guardrail].format(rejection.value) + " Save again if it is right all the same."
