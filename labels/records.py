"""The records that pass between the rooms: query, fact, label, verdict, release."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from labels.files import digest
from labels.task import Task

Status = Literal["accepted", "rejected", "failed"]
Decision = Literal["right", "corrected", "cant_tell"]
Part = Literal["audit", "active", "gold"]
Band = Literal["head", "torso", "tail"]


def now() -> str:
    """The present moment, UTC, ISO 8601 to the microsecond: of two verdicts in one second the later one counts."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True)
class Query:
    """A query in normal form and its traffic (events, decayed where the log has times)."""

    text: str
    traffic: float


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing the catalogue knows, as a model reads it (`line`), and the text it is found by."""

    line: str
    indexed: str


@dataclass(frozen=True, slots=True)
class Example:
    """A query people verified, its right answer as the task's JSON, and how near it is to the query it is shown for."""

    query: str
    value: str
    score: float


@dataclass(frozen=True, slots=True)
class Label:
    """One author's answer for one query, with its provenance.

    `value` is the task's compact JSON, None unless accepted or rejected; `confidence` is 0 to 1 by field; `reason`
    says why it was rejected or failed; `identity` is the content it came from (`label_identity`). `facts` and
    `examples` are what the model was shown, best first, `scores` how near each fact is. A rejected label carries the
    `guardrail` that turned it down, its `figure` and its `threshold`. `agreement`, by field, is the share of `samples`
    answers that gave the value kept. `attempts` is 2 where the first answer was of no use; tokens are of both.
    """

    identity: str
    query: str
    status: Status
    value: str | None
    confidence: dict[str, float]
    reason: str
    raw: str
    facts: tuple[str, ...]
    task: str
    task_version: str
    model: str
    prompt: str
    night: str
    tokens_in: int
    tokens_out: int
    tokens_cached: int = 0
    scores: tuple[float, ...] = ()
    examples: tuple[Example, ...] = ()
    guardrail: str = ""
    figure: float | None = None
    threshold: float | None = None
    samples: int = 1
    agreement: dict[str, float] = field(default_factory=dict)
    attempts: int = 1
    created: str = field(default_factory=now)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reviewer said of a label. `value` is the right answer as the task's JSON, None where they can't tell.

    `draft` is the label's value as it was shown. `part` says why it was asked: for the audit, to learn from, or as a
    hidden gold item that tests the reviewer. `seconds` is how long it took. `id` is made by who asks, once an answer:
    the same verdict sent again is the same verdict.
    """

    identity: str
    query: str
    reviewer: str
    decision: Decision
    value: str | None
    simulated: bool = False
    draft: str | None = None
    part: Part = "audit"
    note: str = ""
    seconds: float = 0.0
    task: str = ""
    task_version: str = ""
    id: str = field(default_factory=lambda: uuid4().hex)
    created: str = field(default_factory=now)


@dataclass(frozen=True, slots=True)
class Release:
    """A generation, the student that goes with it, and the night whose evidence let them through.

    Its `entries` lie in so many `buckets`, placed by their canonical form where `canonical`. `traffic_share` (0 to 1) is the
    hit rate to expect. `forced` names the gate's checks that failed and were overridden: it is empty where the evidence
    did let them through.
    """

    release: str
    generation: str
    student: str
    task: str
    night: str
    task_version: str
    entries: int
    buckets: int
    normalisation: int
    traffic_share: float = 0.0
    canonical: bool = False
    created: str = field(default_factory=now)
    forced: tuple[str, ...] = ()

    def to_json(self) -> str:
        """JSON, as Redis and the release history hold it."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({name: value for name, value in told.items() if name != "forced" or value})


def label_identity(task: type[Task], query: str, model: str, prompt: str) -> str:
    """A label's identity is its content: task and version, query, teacher, and prompt (which holds the facts)."""
    return digest(task.name, task.version(), query, model, prompt)
