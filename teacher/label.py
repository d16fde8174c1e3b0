"""Labelling: ask the teacher what it has not been asked, chunk by chunk, and lose nothing (invariants 1 and 2)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labels.confidence import field_confidence
from labels.errors import InputError
from labels.files import digest
from labels.guardrails import check
from labels.prompt import messages
from labels.records import Label, Status, label_identity
from labels.task import Task
from labels.warehouse import Warehouse
from teacher.engine import Completion, Engine

CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One query with what the teacher will be shown, and the identity its label will have."""

    identity: str
    query: str
    facts: tuple[str, ...]
    prompt: str


@dataclass(frozen=True)
class Labelled:
    """What a labelling run did: how many were asked of the teacher, at what cost."""

    asked: int
    already: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    seconds: float


def plan(task: type[Task], queries: Sequence[str], facts: Sequence[Sequence[str]], model: str) -> list[Request]:
    """The requests for `queries`, each shown its facts (best first), for the teacher identified by `model`."""
    requests = []
    for query, shown in zip(queries, facts, strict=True):
        prompt = digest(messages(task, query, shown))
        requests.append(Request(label_identity(task, query, model, prompt), query, tuple(shown), prompt))
    return requests


def label(
    task: type[Task],
    requests: Sequence[Request],
    open_engine: Callable[[], Engine],
    warehouse: Warehouse,
    night: str,
    progress: Callable[[int], None] = lambda _: None,
) -> Labelled:
    """Label every request the warehouse has no label for; each chunk is durable before the next is asked.

    The engine is opened only if something has to be asked. Raises EngineError when it fails (done chunks stay).
    """
    held = warehouse.identities()
    todo = [request for request in requests if request.identity not in held]
    progress(len(requests) - len(todo))
    start, used = time.perf_counter(), [0, 0, 0]
    if todo:
        engine = open_engine()
        for first in range(0, len(todo), CHUNK):
            chunk = todo[first : first + CHUNK]
            completions = engine.complete(task, [messages(task, r.query, r.facts) for r in chunk])
            done = [
                label_of(task, request, completion, engine.model, night)
                for request, completion in zip(chunk, completions, strict=True)
            ]
            warehouse.add_labels(done)
            progress(len(done))
            for completion in completions:
                used[0] += completion.tokens_in
                used[1] += completion.tokens_cached
                used[2] += completion.tokens_out
    return Labelled(len(todo), len(requests) - len(todo), used[0], used[1], used[2], time.perf_counter() - start)


def label_of(task: type[Task], request: Request, completion: Completion, model: str, night: str) -> Label:
    """The label a completion makes: failed if truncated or unparsable, rejected by a guardrail, else accepted."""
    status: Status = "accepted"
    value, reason, confidence = None, "", {}
    try:
        if not completion.finished:
            raise InputError(f"truncated after {completion.tokens_out} tokens")
        answer = task.parse(completion.text)
        value, confidence = answer.to_json(), field_confidence(task, completion.text, completion.pieces)
        rejection = check(answer, request.query, request.facts)
        if rejection:
            status, reason = "rejected", str(rejection)
    except (InputError, ValueError) as error:  # ValueError: the right keys in another order, where no value is found
        status, reason = "failed", str(error)
    return Label(
        identity=request.identity,
        query=request.query,
        status=status,
        value=value,
        confidence=confidence,
        reason=reason,
        raw=completion.text,
        facts=request.facts,
        task=task.name,
        task_version=task.version(),
        model=model,
        prompt=request.prompt,
        night=night,
        tokens_in=completion.tokens_in,
        tokens_out=completion.tokens_out,
    )
