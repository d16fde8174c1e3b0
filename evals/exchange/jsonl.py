"""JSON lines: an item a line, as `Item.to_json` has it, and `verdicts`, the list of what people said of it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evals.exchange.said import Problem, checked, unreadable
from evals.item import Item, item_of
from labels.records import Verdict
from labels.task import Task

_VERDICT = TypeAdapter(Verdict)


def jsonl(items: Iterable[Item], verdicts: Iterable[Verdict]) -> str:
    """The items, each with its verdicts in their order, one line each; verdicts of other labels are left out."""
    by_label = grouped(verdicts)
    lines = [
        asdict(item) | {"verdicts": [asdict(one) for one in by_label.get(item.label.identity, [])]} for item in items
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def grouped(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    """The verdicts by their label's identity."""
    by_label: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_label.setdefault(verdict.identity, []).append(verdict)
    return by_label


def item_in(line: str) -> Item:
    """The item of a line. Raises TypeError, KeyError or ValueError where there is none."""
    found = json.loads(line)
    found.pop("verdicts", None)
    return item_of(json.dumps(found))


def read_line(
    where: str, record: Mapping[str, Any], items: Mapping[str, Item], task: type[Task]
) -> Iterator[Verdict | Problem]:
    """The verdicts of a line, checked."""
    label, said = record["label"], record.get("verdicts", [])
    if not isinstance(label, dict) or not isinstance(said, list):
        yield Problem("unreadable", where, "wanted `label`, an object, and `verdicts`, a list")
        return
    for number, one in enumerate(said, start=1):
        place = f"{where}, verdict {number}"
        try:
            verdict = _VERDICT.validate_python(one)
        except ValidationError as error:
            yield unreadable(place, error)
            continue
        if verdict.identity != label.get("identity"):
            yield Problem("contradicts itself", place, f"is of label {verdict.identity!r}, its line of another")
            continue
        yield checked(place, verdict, verdict.task_version, items, task)
