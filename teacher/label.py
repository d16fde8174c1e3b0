"""Labelling: ask the teacher what it has not been asked, and lose nothing (invariants 1 and 2).

Requests stream in, labels stream out: memory does not grow with their number, and the engine never waits for a chunk to
end. A chunk of COMMIT labels is durable or not there at all; a kill costs what was in flight, and that is asked again.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from labels.errors import EngineError
from labels.task import Task
from labels.warehouse import Warehouse
from teacher.answers import labels_of
from teacher.engine import IN_FLIGHT, Completion, Engine, Prompt
from teacher.plan import Request

COMMIT = 512
"""Labels committed together."""
AT_RISK = IN_FLIGHT + COMMIT
"""At most so many queries are asked again after a kill: those in flight and those answered but not yet committed.

Under Ray each replica has about twice IN_FLIGHT before it.
"""


@dataclass(frozen=True)
class Labelled:
    """What a labelling run did: how many queries the teacher was asked, and what that took (tokens; seconds)."""

    asked: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    seconds: float = 0.0


def label(
    task: type[Task],
    requests: Iterable[Request],
    open_engine: Callable[[], Engine],
    max_tokens: int,
    warehouse: Warehouse,
    night: str,
    progress: Callable[[int], None] = lambda _: None,
) -> Labelled:
    """Label every request; none of them may have a label yet (`teacher.requests.pending` gives such).

    The engine is opened only if there is something to ask, and stays open. `progress` is told how many labels were made
    durable. Raises EngineError where the engine fails or loses a request; what was committed stays.
    """
    first = next(incoming := iter(requests), None)
    if first is None:
        return Labelled()
    engine = open_engine()
    start, used = time.perf_counter(), _Used()
    for answered in _chunks(ask(task, engine, chain([first], incoming), max_tokens)):
        asked, completions = [request for request, _ in answered], [completion for _, completion in answered]
        warehouse.add_labels(labels_of(task, asked, completions, engine.model, night))
        used.count(completions)
        progress(len(answered))
    return used.labelled(time.perf_counter() - start)


def ask(
    task: type[Task], engine: Engine, requests: Iterable[Request], max_tokens: int
) -> Iterator[tuple[Request, Completion]]:
    """Each request with what came of it, in the order the engine finishes them.

    Raises EngineError unless every request comes back exactly once.
    """
    waiting: dict[str, Request] = {}

    def prompts() -> Iterator[Prompt]:
        for request in requests:
            waiting[request.identity] = request
            yield Prompt(request.identity, request.messages(task), max_tokens)

    for completion in engine.complete(task, prompts()):
        request = waiting.pop(completion.key, None)
        if request is None:
            raise EngineError(f"the engine answered {completion.key!r}, which was not asked or was answered before")
        yield request, completion
    if waiting:
        raise EngineError(
            f"the engine ended without an answer for {len(waiting)} of its queries, such as "
            f"{next(iter(waiting.values())).query!r}; what was labelled stays: run the same command again"
        )


class _Used:
    """Counts what a run used."""

    def __init__(self) -> None:
        self.asked = self.tokens_in = self.tokens_cached = self.tokens_out = 0

    def count(self, completions: Iterable[Completion]) -> None:
        for completion in completions:
            self.asked += 1
            self.tokens_in += completion.tokens_in
            self.tokens_cached += completion.tokens_cached
            self.tokens_out += completion.tokens_out

    def labelled(self, seconds: float) -> Labelled:
        return Labelled(self.asked, self.tokens_in, self.tokens_cached, self.tokens_out, seconds)


def _chunks(answered: Iterable[tuple[Request, Completion]]) -> Iterator[list[tuple[Request, Completion]]]:
    chunk = []
    for pair in answered:
        chunk.append(pair)
        if len(chunk) == COMMIT:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
