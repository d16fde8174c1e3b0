"""What a lookup answers, and how an entry of Redis becomes one."""

from dataclasses import dataclass
from time import time
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from cache.layout import BrokenError, parse_entry
from labels.task import Task

Source = Literal["cache", "student", "tail-cache", "none"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query (in normal form) names, who says so, and of which release; `reason` says why there is nothing.

    `value_json` is the task's compact JSON in UTF-8, `confidence` 0 to 1; `age` is in whole seconds since the answer was
    made; `milliseconds` is how long the question took.
    """

    query: str
    value_json: bytes | None
    source: Source
    release: str | None
    confidence: float | None
    age: int | None
    reason: str
    milliseconds: float

    @property
    def value(self) -> dict[str, Any] | None:
        """The task's fields, None where there is no answer; the caller's own to change."""
        value: dict[str, Any] | None = None if self.value_json is None else from_json(self.value_json)
        return value

    def to_json(self) -> bytes:
        """The whole answer as a JSON object, its fields in order, `value` in place of `value_json`."""
        rest = {
            "source": self.source,
            "release": self.release,
            "confidence": self.confidence,
            "age": self.age,
            "reason": self.reason,
            "milliseconds": self.milliseconds,
        }
        return b'{"query":%b,"value":%b,%b' % (to_json(self.query), self.value_json or b"null", to_json(rest)[1:])


class Found(NamedTuple):
    """An answer before it is stamped with query, release and time. `made` is in seconds since 1970."""

    value_json: bytes | None
    source: Source
    confidence: float | None = None
    made: float | None = None
    reason: str = ""

    def stamped(self, query: str, release: str | None, milliseconds: float) -> Answer:
        """The answer to `query`."""
        value_json, source, confidence, made, reason = self
        age = None if made is None else max(0, int(time() - made))
        return Answer(query, value_json, source, release, confidence, age, reason, round(milliseconds, 3))


def nothing(reason: str) -> Found:
    """No answer, and why."""
    return Found(None, "none", reason=reason)


class Opener:
    """Opens the entries of one task."""

    def __init__(self, task: type[Task]) -> None:
        self._fields = tuple(task.model_fields)
        # what model_validate and model_dump_json call, without their own time, which is as much again
        self._validate, self._dump = task.__pydantic_validator__.validate_python, task.__pydantic_serializer__.to_json

    def open(self, raw: bytes | str, source: Source, made: float) -> Found:
        """The answer that an entry holds; `made` is for one that does not say. Raises BrokenError where it is none."""
        entry = parse_entry(raw, self._fields)
        try:
            value_json = self._dump(self._validate(entry.value, strict=True))
        except ValidationError as error:
            raise BrokenError(f"it breaks the task's schema: {error.errors(include_url=False)[0]['msg']}") from None
        return Found(value_json, source, entry.confidence, made if entry.made is None else entry.made)
