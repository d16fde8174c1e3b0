"""What a dataset holds: rows of the task, and general rows that are replayed against forgetting."""

from dataclasses import dataclass
from typing import Literal

from labels.prompt import Message
from labels.records import Band

Source = Literal["teacher", "people", "student", "file"]


@dataclass(frozen=True, slots=True)
class Row:
    """One query with the answer the student is to learn, as the task's JSON.

    `source`: who gave the answer; `traffic` in events; `difficulty` 0 to 1, how unsure the teacher was of its least sure
    field; `times` the row comes in an epoch.
    """

    query: str
    value: str
    source: Source = "teacher"
    band: Band = "tail"
    traffic: float = 1.0
    difficulty: float = 0.0
    times: int = 1


@dataclass(frozen=True, slots=True)
class Replay:
    """A general instruction row: chat messages, and the answer that carries the loss."""

    prompt: list[Message]
    completion: str
