"""Label Studio: the labelling interface, tasks to import, and its "JSON" export read back.

Words of the query are marked in the text; what is not words of it is typed, and of a closed set it is chosen. Offsets
count code points, as Python does and not as JavaScript: Label Studio converts them (`charsToCodePoints` and `findRange`
in web/libs/editor/src/utils/selection-tools.js; before its frontend's pull request 308 they counted UTF-16 units).

An annotation's author must be a member of the Label Studio project, by e-mail address; a verdict of somebody else is
imported there as the importing person's, and comes back as its own by its stamp.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from pydantic import BaseModel, Field, ValidationError

from evals.exchange.jsonl import grouped
from evals.exchange.said import Problem, checked, moment, unreadable, verdict_id
from evals.exchange.stamp import returned, stamp
from evals.fields import fields_of, values_by_field
from evals.item import Item
from labels.normalise import normalise
from labels.records import Verdict
from labels.task import MAX_ITEMS, Task

WORDS, DECISION, NOTE, VALUE = "words", "decision", "note", "value_"
DECISIONS = {"right": "right", "corrected": "corrected", "cant_tell": "can't tell"}
Json = dict[str, Any]


def label_studio_config(task: type[Task]) -> str:
    """The labelling interface, XML: what a project's "Labeling Interface" page takes as code."""
    fields = fields_of(task)
    view = Element("View")
    SubElement(view, "Header", value=(task.__doc__ or task.name).strip().splitlines()[0])
    SubElement(view, "Text", name="query", value="$query")
    SubElement(view, "Text", name="facts", value="$facts")
    if fields.worded:
        labels = SubElement(view, "Labels", name=WORDS, toName="query")
        for name in fields.worded:
            SubElement(labels, "Label", value=name)
    for name, info in task.model_fields.items():
        SubElement(view, "Header", size="5", value=f"{name}: {info.description}")
        closed = fields.closed.get(name)
        if closed is not None:
            _choices(view, VALUE + name, closed, choice="multiple" if task.is_list(name) else "single", layout="select")
        else:
            hint = "only where it is no words of the query" if name in fields.worded else "one a line"
            most = str(MAX_ITEMS if task.is_list(name) else 1)
            SubElement(
                view,
                "TextArea",
                name=VALUE + name,
                toName="query",
                maxSubmissions=most,
                editable="true",
                placeholder=hint,
            )
    _choices(view, DECISION, DECISIONS.values(), choice="single", required="true")
    SubElement(view, "TextArea", name=NOTE, toName="query", maxSubmissions="1", placeholder="a note")
    indent(view)
    return tostring(view, encoding="unicode")


def _choices(view: Element, name: str, values: Iterable[str], **more: str) -> None:
    choices = SubElement(view, "Choices", {"name": name, "toName": "query"} | more)
    for value in values:
        SubElement(choices, "Choice", value=value)


def label_studio_tasks(task: type[Task], items: Iterable[Item], verdicts: Iterable[Verdict]) -> list[Json]:
    """The items as Label Studio imports them (a JSON list): the draft is the prediction, verdicts are annotations.

    Raises InputError where a label's or a verdict's value breaks the task's schema.
    """
    by_label = grouped(verdicts)
    return [_task(task, item, by_label.get(item.label.identity, [])) for item in items]


def _task(task: type[Task], item: Item, verdicts: Sequence[Verdict]) -> Json:
    label = item.label
    draft: Json = {"model_version": label.model, "result": _regions(task, label.query, label.value)}
    if label.confidence:
        draft["score"] = min(label.confidence.values())
    return {
        "data": {
            "query": label.query,
            "facts": "\n".join(label.facts),
            "identity": label.identity,
            "task": task.name,
            "task_version": label.task_version,
            "reason": item.reason,
            "verdicts": [stamp(str(_number(one)), one) for one in verdicts],
        },
        "predictions": [draft],
        "annotations": [_annotation(task, one) for one in verdicts],
    }


def _annotation(task: type[Task], verdict: Verdict) -> Json:
    result = _regions(task, verdict.query, verdict.value)
    result.append(_region(DECISION, "choices", {"choices": [DECISIONS[verdict.decision]]}, DECISION))
    if verdict.note:
        result.append(_region(NOTE, "textarea", {"text": [verdict.note]}, NOTE))
    author = {"completed_by": {"email": verdict.reviewer}} if "@" in verdict.reviewer else {}
    return author | {
        "id": _number(verdict),
        "result": result,
        "was_cancelled": False,
        "ground_truth": False,
        "lead_time": verdict.seconds,
        "created_at": verdict.created,
    }


def _number(verdict: Verdict) -> int:
    """The verdict's id as Label Studio has them: an integer, which it keeps as `import_id`, exact in JavaScript too."""
    return int(hashlib.sha256(verdict.id.encode("utf-8", "replace")).hexdigest()[:13], 16)


def _regions(task: type[Task], query: str, value: str | None) -> list[Json]:
    """An answer as a result list, in the order of its values."""
    if value is None:
        return []
    fields, regions = fields_of(task), []
    for name, values in values_by_field(task.parse(value)).items():
        spans = [span for span in (_span(query, one) for one in values) if span] if name in fields.worded else []
        if name in fields.closed:
            regions.append(_region(VALUE + name, "choices", {"choices": values}, VALUE + name))
        elif len(spans) == len(values):
            regions += [
                _region(WORDS, "labels", span | {"text": one, "labels": [name]}, f"{name}-{place}")
                for place, (one, span) in enumerate(zip(values, spans, strict=True))
            ]
        else:  # all of them typed, so that they keep their order
            regions.append(_region(VALUE + name, "textarea", {"text": values}, VALUE + name))
    return regions


def _span(query: str, value: str) -> Json | None:
    """Where the very words of the value stand in the query."""
    found = re.search(rf"(?<!\S){re.escape(value)}(?!\S)", query)
    return {"start": found.start(), "end": found.end()} if found else None


def _region(control: str, kind: str, value: Json, region: str) -> Json:
    return {"id": region, "from_name": control, "to_name": "query", "type": kind, "value": value}


class _Region(BaseModel):
    from_name: str = ""
    value: dict[str, Any] = Field(default_factory=dict)


class _Annotation(BaseModel):
    id: int | str | None = None
    import_id: int | None = None
    completed_by: int | str | dict[str, Any] | None = None
    result: list[_Region]
    was_cancelled: bool | None = False
    lead_time: float | None = None
    created_at: str | None = None
    updated_at: str | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Whose answer is read: the record in the file and its label, None where it is none of the items."""

    where: str
    data: Json
    item: Item | None


def read_task(
    where: str, record: Mapping[str, Any], items: Mapping[str, Item], task: type[Task]
) -> Iterator[Verdict | Problem]:
    """The annotations of an exported task, as verdicts, checked. One that was skipped is a problem: it says nothing."""
    data, annotations = record["data"], record.get("annotations", [])
    if not isinstance(data, dict) or not isinstance(annotations, list):
        yield Problem("unreadable", where, "wanted `data`, an object, and `annotations`, a list")
        return
    item = items.get(str(data.get("identity")))
    for number, given in enumerate(annotations, start=1):
        place = _Place(f"{where}, annotation {number}", data, item)
        try:
            annotation = _Annotation.model_validate(given)
        except ValidationError as error:
            yield unreadable(place.where, error)
            continue
        if annotation.was_cancelled:
            yield Problem("no verdict", place.where, "was skipped in Label Studio")
            continue
        yield _read(place, annotation, items, task)


def _read(place: _Place, annotation: _Annotation, items: Mapping[str, Item], task: type[Task]) -> Verdict | Problem:
    data, label = place.data, place.item.label if place.item else None
    query = label.query if label else str(data.get("query", ""))
    try:
        value = None if _decision(annotation) == "cant_tell" else _answer(task, query, annotation.result)
    except (TypeError, ValueError) as error:
        return Problem("breaks the schema", place.where, f"the answer for {query!r}: {error}")
    said = Verdict(
        identity=str(data.get("identity")),
        query=query,
        reviewer=_reviewer(annotation.completed_by),
        decision=_decision(annotation),  # type: ignore[arg-type]  # `checked` refuses any other
        value=value,
        draft=label.value if label else None,
        part=place.item.part if place.item else "audit",
        note=" ".join(text for region in annotation.result if region.from_name == NOTE for text in _texts(region)),
        seconds=annotation.lead_time or 0.0,
        task=task.name,
        task_version=task.version(),
    )
    found = checked(place.where, said, str(data.get("task_version") or ""), items, task)
    if isinstance(found, Problem):
        return found
    stamps = data.get("verdicts")
    keys = [str(annotation.id), str(annotation.import_id)]
    return returned(keys, found, stamps if isinstance(stamps, list) else []) or _named(place, found, annotation)


def _decision(annotation: _Annotation) -> str:
    """What was chosen, in our words; as it stands where it is none of them, "" where nothing was."""
    said = [text for region in annotation.result if region.from_name == DECISION for text in _texts(region)]
    ours = {theirs: name for name, theirs in DECISIONS.items()}
    return ours.get(said[0], said[0]) if said else ""


def _answer(task: type[Task], query: str, regions: Sequence[_Region]) -> str:
    """The answer the regions give, as JSON. Typed outranks marked where a field has one value.

    Raises ValueError where a region marks what is not there or a field the task has not.
    """
    marked: dict[str, list[tuple[int, str]]] = {name: [] for name in task.model_fields}
    typed: dict[str, list[str]] = {name: [] for name in task.model_fields}
    for region in regions:
        control, value = region.from_name, region.value
        names = value.get("labels", []) if control == WORDS else [control.removeprefix(VALUE)]
        if control != WORDS and not control.startswith(VALUE):
            continue
        for name in names:
            if name not in marked:
                raise ValueError(f"the task has no field {name!r}")
            if control == WORDS:
                marked[name].append(_marked(query, value))
            else:
                typed[name] += _texts(region)
    answer: Json = {}
    for name in task.model_fields:
        if task.is_list(name):
            answer[name] = [*(words for _, words in marked[name]), *typed[name]]
        elif len(typed[name]) > 1:
            raise ValueError(f"{name}: wanted one value, got {typed[name]!r}")
        else:
            answer[name] = typed[name][0] if typed[name] else " ".join(words for _, words in sorted(marked[name]))
    return json.dumps(answer, ensure_ascii=False)


def _marked(query: str, value: Json) -> tuple[int, str]:
    """Where a marked text begins and the text, by code points; by UTF-16 units where only so it is what the file says."""
    start, end, said = value.get("start"), value.get("end"), value.get("text")
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        raise ValueError(f"wanted a start and an end in the query, got {start!r} and {end!r}")
    words = query[start:end]
    units = query.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le", "replace")
    for found in (words, units):
        if found.strip() and (said is None or normalise(found) == normalise(str(said))):
            return start, found
    raise ValueError(f"characters {start} to {end} of {query!r} are {words!r}, the file says {said!r}")


def _texts(region: _Region) -> list[str]:
    """What was typed or chosen; a single text may come without its list."""
    found = region.value.get("text", region.value.get("choices", []))
    return [str(one) for one in (found if isinstance(found, list) else [found])]


def _reviewer(author: int | str | Json | None) -> str:
    """An e-mail address where the export has it, else the user's number in Label Studio; "" where neither."""
    if isinstance(author, dict):
        author = author.get("email") or author.get("id")
    return f"label studio user {author}" if isinstance(author, int) else author or ""


def _named(place: _Place, verdict: Verdict, annotation: _Annotation) -> Verdict | Problem:
    """The verdict with its id and time."""
    if not verdict.reviewer:
        return Problem("no verdict", place.where, "does not say who gave it (`completed_by`)")
    when = annotation.updated_at or annotation.created_at or ""
    name = verdict_id("label studio", verdict.identity, str(annotation.id), verdict, when)
    return replace(verdict, id=name, created=moment(when))
