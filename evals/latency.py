"""Latency as callers meet it: percentiles of the seconds that requests took, by how many asked at once."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from labels.errors import InputError


@dataclass(frozen=True)
class Latency:
    """With `at_once` callers: milliseconds that half and 99 in 100 of the `requests` took at most, and the rate of all.

    `p99_ms` is one of the times measured, never between two; of fewer than 100 requests it is the slowest.
    """

    at_once: int
    requests: int
    p50_ms: float
    p99_ms: float
    per_second: float
    tokens_per_second: float

    def to_json(self) -> dict[str, float]:
        """A dict `json.dumps` takes."""
        return asdict(self)


def latency_of(at_once: int, seconds: Sequence[float], tokens: int, wall: float) -> Latency:
    """The figures of `seconds`, one a request; `tokens` answered in all in `wall` seconds. Raises InputError without any."""
    if not seconds:
        raise InputError("no request was answered in the time given; see whether the student's server still runs")
    p50, p99 = np.percentile(np.asarray(seconds) * 1000, [50, 99], method="higher")
    rate, token_rate = len(seconds) / wall, tokens / wall
    return Latency(
        at_once, len(seconds), round(float(p50), 2), round(float(p99), 2), round(rate, 2), round(token_rate, 1)
    )
