"""How fast the served student answers when so many callers ask at once, each as soon as it was answered."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from student.client import StudentClient


@dataclass(frozen=True)
class Load:
    """`at_once` callers: the `seconds` each request took, as the caller meets it, in the order they were answered; the
    answers' `tokens` in all, and `wall`, the seconds from the first request to the last answer.
    """

    at_once: int
    seconds: list[float]
    tokens: int
    wall: float


async def load(client: StudentClient, queries: Sequence[str], at_once: int, requests: int, limit: float) -> Load:
    """Ask `requests` queries, over again from the first where they run out; none is begun after `limit` seconds.

    Each caller asks one at least: fewer requests than callers would not be so many at once.

    A closed loop: no caller has more than one request under way. Raises EngineError where the server gives no answer.
    """
    asked = itertools.islice(itertools.cycle(queries), max(requests, at_once))
    seconds: list[float] = []
    tokens = 0
    start = time.perf_counter()

    async def caller() -> None:
        nonlocal tokens
        for query in asked:  # the callers share one iterator: each takes the next query there is
            began = time.perf_counter()
            if began - start > limit:
                return
            answered = await client.answer_tokens(query)
            tokens += answered
            seconds.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(at_once)))
    return Load(at_once, seconds, tokens, time.perf_counter() - start)
