"""The flip rate: how often the same query with the same inputs gets another answer when it is asked again."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from labels.records import Label
from labels.task import Task
from labels.warehouse import Warehouse
from teacher.answers import labels_of
from teacher.engine import Engine
from teacher.label import ask
from teacher.plan import Request

SHOWN = 10


@dataclass(frozen=True)
class Flip:
    """A query and its answers: the label held, and what the teacher says now."""

    query: str
    before: str
    after: str


@dataclass(frozen=True)
class Flips:
    """How many labels were asked again, how many came out otherwise, and up to SHOWN of these."""

    asked: int
    flipped: int
    examples: list[Flip]

    def to_json(self) -> dict[str, object]:
        """For the night's summary."""
        return asdict(self) | {"rate": self.flipped / self.asked if self.asked else None}


def flips(
    task: type[Task],
    requests: Sequence[Request],
    engine: Engine,
    max_tokens: int,
    warehouse: Warehouse,
) -> Flips:
    """Ask `requests`, which all have a label, again and compare; nothing is stored.

    An answer is another one where its status or its value differs; of failures the status alone counts.
    """
    pairs = list(ask(task, engine, requests, max_tokens))
    asked, completions = [request for request, _ in pairs], [completion for _, completion in pairs]
    again = labels_of(task, asked, completions, engine.model, "")
    held = {one.identity: one for one in warehouse.labels(request.identity for request in asked)}
    changed = [
        Flip(now.query, _said(held[now.identity]), _said(now))
        for now in again
        if (now.status, now.value) != (held[now.identity].status, held[now.identity].value)
    ]
    return Flips(len(again), len(changed), changed[:SHOWN])


def _said(label: Label) -> str:
    return f"{label.status}: {label.value or label.reason}"
