"""What a lookup answers, and how an entry of Redis becomes one."""

from collections.abc import Callable
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from cache.layout import AUTHORS, BrokenError
from labels.task import Task

Source = Literal["cache", "student", "tail-cache", "none"]


class Answer(NamedTuple):
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
    made: int | None = None
    reason: str = ""

    def stamped(self, query: str, release: str | None, milliseconds: float, now: int) -> Answer:
        """The answer to `query`, `now` in seconds since 1970."""
        value_json, source, confidence, made, reason = self
        age = None if made is None else now - made if now > made else 0
        # What Answer(...) does, without the Python function around it, which took twice as long: a batch stamps many.
        return tuple.__new__(Answer, (query, value_json, source, release, confidence, age, reason, milliseconds))


def nothing(reason: str) -> Found:
    """No answer, and why."""
    return Found(None, "none", reason=reason)


class Opener:
    """Opens the entries of one task: an array is parsed and validated in one call, which costs a third of the model's."""

    def __init__(self, task: type[Task]) -> None:
        self._fields = tuple(task.model_fields)
        kinds = [Annotated[field.annotation, field] for field in task.model_fields.values()]
        confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
        author, made = Annotated[int, Field(ge=0, lt=len(AUTHORS))], Annotated[int, Field(default=None)]
        entry: Any = GenericAlias(tuple, (*kinds, confidence, author, made))
        # Without pydantic's cache of strings: it is larger than a processor's, and few words come again soon enough.
        config = ConfigDict(strict=True, cache_strings="none")
        self._parse = TypeAdapter(entry, config=config).validator.validate_json
        self._whole = _whole(task)

    def open(self, raw: bytes | str, source: Source, made: int) -> Found:
        """The answer that an entry holds; `made` is for one that does not say. Raises BrokenError where it is none."""
        try:
            values = self._parse(raw)
            value = dict(zip(self._fields, values, strict=False))
            value_json = to_json(self._whole(value) if self._whole else value)
        except ValidationError as error:
            raise BrokenError(f"it is no entry of the task: {error.errors(include_url=False)[0]['msg']}") from None
        told = values[-1]
        return Found(value_json, source, values[-3], made if told is None else told)


def _whole(task: type[Task]) -> Callable[[dict[str, Any]], Task] | None:
    """What a task asks of its values beyond each field's type: None where it has no validators and settings of its own."""
    own = task.__pydantic_decorators__
    if task.model_config == Task.model_config and not (own.field_validators or own.model_validators or own.validators):
        return None
    return lambda value: task.model_validate(value, strict=True)
