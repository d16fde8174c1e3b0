"""Where things stand in Redis: the keys, and what an entry and a release look like as values."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from labels.records import Release

RELEASE = "stillhouse:release"  # the release being served: the one key that a switch changes
RELEASES = "stillhouse:releases"  # a list: every release served, the latest last
GENERATIONS = "stillhouse:generations"  # a set: every generation that may have keys, finished or not


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached answer: the task's fields, how sure its author was, and who that was ("teacher" or "person")."""

    value: dict[str, Any]
    confidence: float
    author: str


def query_key(generation: str, query: str) -> str:
    """The key of a query (in normal form) in a generation."""
    return f"stillhouse:{generation}:q:{query}"


def manifest_key(generation: str) -> str:
    """The key whose existence says that the generation is finished."""
    return f"stillhouse:{generation}:manifest"


def every_key(generation: str) -> str:
    """The pattern of all keys of a generation."""
    return f"stillhouse:{generation}:*"


def entry(value_json: str, confidence: float, author: str) -> str:
    """What the cache holds for a query, from the label's compact JSON."""
    return f'{{"value":{value_json},"confidence":{round(confidence, 4)},"author":{json.dumps(author)}}}'


def parse_entry(raw: bytes | str) -> Entry:
    """The reverse of `entry`. Raises ValueError where `raw` is no entry."""
    found = _object(raw)
    value, confidence, author = found.get("value"), found.get("confidence"), found.get("author")
    if not isinstance(value, dict) or not isinstance(confidence, int | float) or not isinstance(author, str):
        raise ValueError("wanted an entry with value, confidence and author")
    return Entry(value, confidence, author)


def parse_release(raw: bytes | str) -> Release:
    """The reverse of `Release.to_json`. Raises ValueError where `raw` is no release."""
    found = _object(raw)
    try:
        return Release(**found | {"forced": tuple(found.get("forced", ()))})  # releases of before have none
    except TypeError as error:
        raise ValueError(f"wanted a release: {error}") from error


def _object(raw: bytes | str) -> dict[str, Any]:
    found = from_json(raw, allow_inf_nan=False)  # unlike json's, it refuses lone surrogates and endless nesting
    if not isinstance(found, dict):
        raise ValueError(f"wanted a JSON object, got {type(found).__name__}")
    return found
