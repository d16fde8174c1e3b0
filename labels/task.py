"""What to find in a query: a Pydantic model from which the instruction, the schema, the parser and the scorer come.

A new task is a subclass of `Task` with a docstring (what to do) and fields that are `str` (one value, "" for
none) or `list[str]` (any number), each with a description (what it means) and its guardrails as annotations.
"""

import hashlib
import json
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from labels.errors import InputError
from labels.normalise import normalise

MAX_ITEMS = 8


class Task(BaseModel):
    """Base of all tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: ClassVar[str]
    template: ClassVar[str] = "prompt.j2"
    """The Jinja file the messages are made by: beside the task's module, else the one in labels/."""

    @classmethod
    def instruction(cls) -> str:
        """What the model is told: the docstring, then a line a field."""
        fields = [f"{name}: {field.description}" for name, field in cls.model_fields.items()]
        return "\n".join([(cls.__doc__ or "").strip(), *fields])

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema structured outputs enforce: every field required, in order, and no other."""
        text = {"type": "string"}
        several = {"type": "array", "items": text, "maxItems": MAX_ITEMS}
        fields = {name: several if cls.is_list(name) else text for name in cls.model_fields}
        return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}

    @classmethod
    def version(cls) -> str:
        """Changes whenever what is asked for changes: a short hash of the instruction and the schema."""
        asked = cls.instruction() + json.dumps(cls.json_schema())
        return hashlib.sha256(asked.encode()).hexdigest()[:12]

    @classmethod
    def is_list(cls, field: str) -> bool:
        """Whether the field holds several values."""
        return cls.model_fields[field].annotation == list[str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The answer in a model's JSON, its values in normal form.

        Raises InputError where the text is no JSON or breaks the schema.
        """
        try:
            return cls.model_validate_json(text, strict=True).normalised()
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in reason["loc"]) or "the answer"
            raise InputError(f"{where}: {reason['msg']}") from None

    def normalised(self) -> Self:
        """The same with every value in normal form, empty and repeated list items left out."""
        return type(self)(**{name: _normal(getattr(self, name)) for name in type(self).model_fields})

    def to_json(self) -> str:
        """Compact JSON, fields in order: what a student is trained to write and what the cache holds."""
        return json.dumps(self.model_dump(), ensure_ascii=False, separators=(",", ":"))

    def items(self) -> frozenset[tuple[str, str]]:
        """The answer as (field, value) pairs, the units precision and recall count; an empty value is no pair."""
        pairs = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            pairs += [(name, item) for item in (value if isinstance(value, list) else [value]) if item]
        return frozenset(pairs)


def _normal(value: str | list[str]) -> str | list[str]:
    if isinstance(value, str):
        return normalise(value)
    return list(dict.fromkeys(item for item in map(normalise, value) if item))
