"""How sure a model was of each field: from the log-probabilities of the tokens that spell its value.

Tokens the grammar forces carry no information (their log-probability after the mask is 0), so only the value's own
tokens count; for an empty value it is the token that closes it at once.
"""

import json
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import cache

from labels.task import Task

_DECODER = json.JSONDecoder()

Piece = tuple[str, float]
"""A token's text and its natural log-probability."""


def field_confidence(task: type[Task], text: str, pieces: Sequence[Piece]) -> dict[str, float]:
    """For each field the geometric mean of its value tokens' probabilities, 0 to 1.

    `text` is the model's answer, JSON of `task`; `pieces` spell it token by token. Raises ValueError where the fields
    do not stand in the task's order.
    """
    return confidence_at(value_spans(task, text), text, pieces)


def confidence_at(spans: Mapping[str, tuple[int, int]], text: str, pieces: Sequence[Piece]) -> dict[str, float]:
    """The same, where `spans` (of `value_spans`) say where each value stands; a value no token touches is 0 sure."""
    starts, ends = _places(text, pieces)
    result = {}
    for name, (start, end) in spans.items():
        touching = [logprob for _, logprob in pieces[bisect_right(ends, start) : bisect_left(starts, end)]]
        result[name] = round(math.exp(sum(touching) / len(touching)), 4) if touching else 0.0
    return result


def _places(text: str, pieces: Sequence[Piece]) -> tuple[list[int], list[int]]:
    """Where each token starts and ends in `text`. One that is not there, a special token say, takes no room."""
    starts, ends, place = [], [], 0
    for piece, _ in pieces:
        starts.append(place)
        place += len(piece) if text.startswith(piece, place) else 0
        ends.append(place)
    return starts, ends


def value_spans(task: type[Task], text: str) -> dict[str, tuple[int, int]]:
    """Where each field's value stands in the JSON `text`, without its quotes unless it is empty: (start, end).

    Raises ValueError where the fields do not stand in the task's order.
    """
    spans, place = {}, 0
    for name, key, quotes in _keys(task):
        found = key.search(text, place)
        if not found:
            order = ", ".join(task.model_fields)
            raise ValueError(f"wanted the fields in the order {order}; {name} is not in its place")
        start = found.end()
        _, place = _DECODER.raw_decode(text, start)
        empty = place - start <= 2 * quotes
        spans[name] = (start, place) if empty else (start + quotes, place - quotes)
    return spans


@cache
def _keys(task: type[Task]) -> list[tuple[str, re.Pattern[str], int]]:
    """Each field's name, its key in JSON, and how many characters open and close its value: `"` or `["`."""
    return [(name, re.compile(rf'"{name}"\s*:\s*'), 2 if task.is_list(name) else 1) for name in task.model_fields]
