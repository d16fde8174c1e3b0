"""Argilla 2: a dataset's settings, records to log, and exported records read back. Plain dicts: no Argilla needed here.

    settings = rg.Settings.from_json("settings.json")                  # what `argilla_settings` gives
    dataset.records.log([rg.Record.from_dict(record) for record in records])   # what `argilla_records` gives
    dataset.records(with_responses=True).to_list(flatten=True)         # what `read_record` reads, as a JSON list

Answers are typed, one value a line, or chosen: Argilla's marked spans go wrong at the first emoji (its page counts
UTF-16 units, its server code points; argilla-io/argilla issue 5729), and many values are no words of the query.

A user is a UUID. A reviewer who is none goes out as one made of their name, and must be made a user of it before the
responses are logged. Argilla's own `to_json` leaves out whether a response was submitted; the flattened list has it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from evals.exchange.jsonl import grouped
from evals.exchange.said import Problem, checked, verdict_id
from evals.exchange.stamp import returned, stamp
from evals.fields import fields_of, values_by_field
from evals.item import Item
from labels.records import Decision, Verdict
from labels.task import Task

DECISION, NOTE, VALUE = "decision", "note", "value_"
DECISIONS: dict[Decision, str] = {"right": "right", "corrected": "corrected", "cant_tell": "can't tell"}
Json = dict[str, Any]


def argilla_settings(task: type[Task]) -> Json:
    """The dataset's settings, as `rg.Settings.from_json` reads them.

    Fields `query` and `facts`; a question for each of the task's fields, `value_` and its name (text, or a choice of a
    closed set); `decision`, the only one required, and `note`. Metadata: `identity`, `task_version`, `reason`, and
    `verdicts`, which reviewers do not see.
    """
    questions = [_question(task, name) for name in task.model_fields]
    questions.append(_property(DECISION, "Is the draft right?", _options("label_selection", DECISIONS.values()), True))
    questions.append(_property(NOTE, "A note", {"type": "text", "use_markdown": False}, False))
    text = {"type": "text", "use_markdown": False}
    terms = {"type": "terms", "values": None}
    return {
        "guidelines": task.instruction(),
        "fields": [_property("query", "Query", text, True), _property("facts", "Facts", text, False)],
        "questions": questions,
        "metadata": [
            {"name": name, "title": name, "settings": terms, "visible_for_annotators": name == "reason"}
            for name in ("identity", "task_version", "reason", "verdicts")
        ],
        "vectors": [],
        "allow_extra_metadata": True,
    }


def _question(task: type[Task], name: str) -> Json:
    closed = fields_of(task).closed.get(name)
    title = f"{name}: {task.model_fields[name].description}"
    if closed is None:
        hint = ", one a line" if task.is_list(name) else ""
        return _property(VALUE + name, title + hint, {"type": "text", "use_markdown": False}, False)
    kind = "multi_label_selection" if task.is_list(name) else "label_selection"
    return _property(VALUE + name, title, _options(kind, closed), False)


def _options(kind: str, values: Iterable[str]) -> Json:
    return {"type": kind, "options": [{"value": value, "text": value} for value in values]}


def _property(name: str, title: str, settings: Json, required: bool) -> Json:
    return {"name": name, "title": title, "required": required, "settings": settings}


def argilla_records(task: type[Task], items: Iterable[Item], verdicts: Iterable[Verdict]) -> list[Json]:
    """The items as `rg.Record.from_dict` takes them: the draft as suggestions, the verdicts as submitted responses.

    Raises InputError where a label's or a verdict's value breaks the task's schema.
    """
    by_label = grouped(verdicts)
    return [_record(task, item, by_label.get(item.label.identity, [])) for item in items]


def _record(task: type[Task], item: Item, verdicts: Sequence[Verdict]) -> Json:
    label = item.label
    suggestions = {
        question: {"value": value, "score": label.confidence.get(question.removeprefix(VALUE)), "agent": label.model}
        for question, value in _answers(task, label.value).items()
    }
    responses: dict[str, list[Json]] = {}
    for verdict in verdicts:
        said = _answers(task, verdict.value) | {DECISION: DECISIONS[verdict.decision]}
        for question, value in (said | ({NOTE: verdict.note} if verdict.note else {})).items():
            response = {"value": value, "user_id": _user(verdict.reviewer), "status": "submitted"}
            responses.setdefault(question, []).append(response)
    return {
        "id": label.identity,
        "fields": {"query": label.query, "facts": "\n".join(label.facts)},
        "metadata": {
            "identity": label.identity,
            "task_version": label.task_version,
            "reason": item.reason,
            "verdicts": [json.dumps(stamp(_user(one.reviewer), one), ensure_ascii=False) for one in verdicts],
        },
        "suggestions": suggestions,
        "responses": responses,
        "vectors": {},
    }


def _answers(task: type[Task], value: str | None) -> Json:
    """An answer by question: a field without a value is left unanswered."""
    if value is None:
        return {}
    closed = fields_of(task).closed
    answers: Json = {}
    for name, values in values_by_field(task.parse(value)).items():
        answers[VALUE + name] = values if name in closed and task.is_list(name) else "\n".join(values)
    return answers


def _user(reviewer: str) -> str:
    try:
        return str(UUID(reviewer))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, f"stillhouse:reviewer:{reviewer}"))


@dataclass(slots=True)
class _Said:
    """What a user answered, by question, and the statuses of the responses (Argilla's to_json tells none)."""

    values: Json = field(default_factory=dict)
    statuses: set[str] = field(default_factory=set)


def read_record(
    where: str, record: Mapping[str, Any], items: Mapping[str, Item], task: type[Task]
) -> Iterator[Verdict | Problem]:
    """The responses of an exported record, nested or flattened, as verdicts, checked.

    One that was not submitted, or is not known to be, is a problem.
    """
    nested = record.get("metadata")
    metadata = nested if isinstance(nested, dict) else record
    try:
        by_user = _by_user(record, task)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        yield Problem("unreadable", where, f"wanted the responses as Argilla exports them ({error!r})")
        return
    for user, said in by_user.items():
        place = f"{where}, user {user}"
        if unfinished := said.statuses - {"submitted"}:
            yield Problem("no verdict", place, f"was not submitted in Argilla ({', '.join(sorted(unfinished))})")
            continue
        found = checked(
            place, _verdict(record, metadata, user, said.values, items, task), str(metadata.get("task_version") or ""),
            items, task,
        )  # fmt: skip
        if isinstance(found, Verdict):
            found = _back(metadata, user, found) or _named(place, found, user, said, record)
        yield found


def _by_user(record: Mapping[str, Any], task: type[Task]) -> dict[str, _Said]:
    by_user: dict[str, _Said] = {}
    responses = record.get("responses") or {}
    for question in [*(VALUE + name for name in task.model_fields), DECISION, NOTE]:
        flat = f"{question}.responses"
        columns = [record.get(name) or [] for name in (flat, f"{flat}.users", f"{flat}.status")]
        given = [(one["user_id"], one["value"], one.get("status")) for one in responses.get(question) or []]
        given += [(user, value, status) for value, user, status in zip(*columns, strict=True)]
        for user, value, status in given:
            said = by_user.setdefault(str(user), _Said())
            said.values[question] = value
            said.statuses |= {str(status)} if status else set()
    return by_user


def _verdict(
    record: Mapping[str, Any],
    metadata: Mapping[str, Any],
    user: str,
    values: Json,
    items: Mapping[str, Item],
    task: type[Task],
) -> Verdict:
    """What the user said, as yet unchecked."""
    identity = str(metadata.get("identity") or record.get("id"))
    item = items.get(identity)
    ours: dict[str, str] = {theirs: name for name, theirs in DECISIONS.items()}
    decision = str(values.get(DECISION, ""))
    decision = ours.get(decision, decision)
    answer = {name: _given(values.get(VALUE + name, ""), task.is_list(name)) for name in task.model_fields}
    return Verdict(
        identity=identity,
        query=item.label.query if item else str((record.get("fields") or record).get("query", "")),
        reviewer=f"argilla user {user}",
        decision=decision,  # type: ignore[arg-type]  # `checked` refuses any other
        value=None if decision == "cant_tell" else json.dumps(answer, ensure_ascii=False),
        draft=item.label.value if item else None,
        part=item.part if item else "audit",
        note=str(values.get(NOTE, "")),
        task=task.name,
        task_version=task.version(),
    )


def _given(value: object, several: bool) -> object:
    """A field's value from its question's: lines of a text are the values of a list."""
    return value.splitlines() if several and isinstance(value, str) else value


def _back(metadata: Mapping[str, Any], user: str, verdict: Verdict) -> Verdict | None:
    """The verdict that went out, where it came back unchanged."""
    stamps = []
    for text in metadata.get("verdicts") or []:
        try:
            stamps.append(json.loads(text))
        except (TypeError, ValueError):
            continue
    return returned([user], verdict, stamps)


def _named(place: str, verdict: Verdict, user: str, said: _Said, record: Mapping[str, Any]) -> Verdict | Problem:
    """The verdict with its id, where it is known to be submitted: a pending record may hold mere drafts."""
    if not said.statuses and record.get("status") != "completed":
        text = "is not known to be submitted; export with `to_list(flatten=True)`, which tells, instead of `to_json`"
        return Problem("no verdict", place, text)
    return replace(verdict, id=verdict_id("argilla", verdict.identity, user, verdict, ""))
