"""How sure a model was of each field: from the log-probabilities of the tokens that spell its value.

Tokens the grammar forces carry no information (their log-probability after the mask is 0), so only the value's own
tokens count; for an empty value it is the token that closes it at once.
"""

import json
import math
import re
from collections.abc import Sequence

from labels.task import Task

_DECODER = json.JSONDecoder()

Piece = tuple[str, float]
"""A token's text and its natural log-probability."""


def field_confidence(task: type[Task], text: str, pieces: Sequence[Piece]) -> dict[str, float]:
    """For each field the geometric mean of its value tokens' probabilities, 0 to 1.

    `text` is the model's answer, compact JSON of `task` in field order; `pieces` spell it token by token.
    """
    starts, place = [], 0
    for piece, _ in pieces:
        starts.append(place)
        place += len(piece)
    spans = value_spans(task, text)
    result = {}
    for name, (start, end) in spans.items():
        touching = [
            logprob for (piece, logprob), at in zip(pieces, starts, strict=True) if at < end and at + len(piece) > start
        ]
        result[name] = round(math.exp(sum(touching) / len(touching)), 4) if touching else 0.0
    return result


def value_spans(task: type[Task], text: str) -> dict[str, tuple[int, int]]:
    """Where each field's value stands in the JSON `text`, without its quotes unless it is empty: (start, end).

    Raises ValueError where the fields do not stand in the task's order.
    """
    spans, place = {}, 0
    for name in task.model_fields:
        key = re.compile(rf'"{name}"\s*:\s*').search(text, place)
        if not key:
            raise ValueError(
                f"wanted the fields in the order {', '.join(task.model_fields)}; {name} is not in its place"
            )
        start = key.end()
        _, place = _DECODER.raw_decode(text, start)
        quotes = 2 if task.is_list(name) else 1
        empty = place - start <= 2 * quotes
        spans[name] = (start, place) if empty else (start + quotes, place - quotes)
    return spans
