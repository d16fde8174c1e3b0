"""Answers a second of several contenders in one process, who take turns."""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time
from typing import Any

from benchmarks.teacher import spread


@dataclass(frozen=True)
class Rate:
    """What a contender did in one turn: answers, wall seconds, and the CPU seconds of this process, all threads of it."""

    answers: int
    seconds: float
    cpu: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


@dataclass(frozen=True)
class Contender:
    """Who makes all the calls of a turn, in an event loop or outside one; a call asks for `batch` queries."""

    make: Callable[[Sequence[Any]], Awaitable[None] | None]
    calls: Sequence[Sequence[Any]]
    batch: int = 1


async def by_turns(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[Rate]]:
    """Each contender's rates by round; who goes first changes, and a first round, to warm up, does not count."""
    names = list(contenders)
    rates: dict[str, list[Rate]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            rates[name].append(await _timed(contenders[name], turn))
        sys.stderr.write(f"round {turn}: {', '.join(f'{name} {rates[name][-1].per_second:,.0f}' for name in names)}\n")
    return {name: found[1:] for name, found in rates.items()}


async def _timed(contender: Contender, turn: int) -> Rate:
    calls = contender.calls[turn]
    started, cpu = perf_counter(), process_time()
    if (made := contender.make(calls)) is not None:
        await made
    return Rate(len(calls) * contender.batch, perf_counter() - started, process_time() - cpu)


def compare(name: str, one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """The ratio of two contenders' rates, round by round: its median as `name`, and its range."""
    ratios = spread([ours / theirs for ours, theirs in zip(one, other, strict=True)])
    return {name: ratios["median"], f"{name}_range": [ratios["min"], ratios["max"]]}


def told(rates: Sequence[Rate]) -> dict[str, Any]:
    """A contender's answers a second and the CPU microseconds of an answer."""
    per_second = spread([rate.per_second for rate in rates])
    return {"per_s": per_second, "cpu_us": round(median(rate.cpu / rate.answers for rate in rates) * 1e6, 2)}
