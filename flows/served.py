"""What served models say, through `vllm serve` as callers meet them; kept, so that nothing is asked of a model twice."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evals.general import Ability, General, Regression, read_general, regression, right
from evals.latency import Latency, latency_of
from flows.night import Night
from labels.errors import PreflightError
from labels.files import digest, read_json, write_json
from labels.guardrails import check
from labels.models import model_identity
from labels.prompt import messages
from labels.task import Task
from student.client import StudentClient, ask_all
from student.load import load
from student.parity import served_parity

AT_ONCE = 32
RENDERED_QUERIES = 8
WARM_UP = 16
LOAD_SECONDS = 10.0
"""No request of a level is begun later: a slow machine measures fewer."""
GENERAL_TOKENS = 256


@contextmanager
def passing(night: Night) -> Iterator[Night]:
    """The same night, but what is served in the block ends with it: a GPU may not hold two models at once."""
    with ExitStack() as own:
        yield replace(night, open=own)


def student_answers(night: Night, student: Path, queries: Sequence[str]) -> tuple[dict[str, Task | None], float, int]:
    """The served student's guarded answer to each query, the share that was invalid, and how many were asked anew.

    An answer is None where it was invalid or a guardrail refused it. No server is started where all are kept.
    """
    file = _kept(night, student, "answers", night.task.version(), messages(night.task, ""))
    stored: dict[str, str | None] = read_json(file) or {}
    new = [query for query in dict.fromkeys(queries) if query not in stored]
    if new:
        stored |= dict(zip(new, asyncio.run(_ask(night, student, new)), strict=True))
        write_json(file, stored)
    else:
        night.screen.say(f"  {student.name} was asked all of this before")
    parsed = {query: night.task.parse(text) if (text := stored[query]) else None for query in queries}
    guarded = {query: None if not answer or check(answer, query) else answer for query, answer in parsed.items()}
    return guarded, sum(answer is None for answer in parsed.values()) / max(len(parsed), 1), len(new)


def kept_answers(night: Night, student: Path) -> set[str]:
    """The queries this student has answered already."""
    return set(read_json(_kept(night, student, "answers", night.task.version(), messages(night.task, ""))) or {})


def student_latency(night: Night, student: Path, queries: Sequence[str]) -> list[Latency]:
    """How fast the served student answers, at each number of callers that the settings name; measured once a student."""
    s, gate = night.settings.evaluate, night.settings.gate
    levels = sorted({*s.concurrency, *([gate.latency_concurrency] if gate.latency_ms else [])})
    file = _kept(night, student, "latency", levels, s.requests, night.settings.student.server)
    if not (stored := read_json(file)):
        with night.screen.waiting("measuring latency"):
            stored = {"latency": [one.to_json() for one in asyncio.run(_load(night, student, queries, levels))]}
        write_json(file, stored)
    return [Latency(**one) for one in stored["latency"]]


def general_loss(night: Night, student: Path) -> Regression | None:
    """What the student forgot of what its base could do; None where the settings name nothing to ask.

    Both are asked the same way, the base while no other model is served. Raises InputError for an unusable file.
    """
    if not (path := night.settings.evaluate.general):
        return None
    asked = read_general(Path(path))
    with passing(night) as apart:
        before = general_ability(apart, Path(night.settings.student.base), asked)
    return regression(before, general_ability(night, student, asked))


def general_ability(night: Night, model: Path, asked: General) -> Ability:
    """What a served model makes of general questions and texts; kept by model and by what is asked."""
    file = _kept(night, model, "general", [asdict(one) for one in asked.questions], asked.texts, GENERAL_TOKENS)
    if not (stored := read_json(file)):
        stored = asdict(asyncio.run(_general(night, model, asked)))
        write_json(file, stored)
    return Ability(**stored)


def _kept(night: Night, model: Path, what: str, *depends: object) -> Path:
    """Where answers of a model are kept, by all that they depend on."""
    ours = model.parent == night.work / "students"  # named by what it was made from, and its answers outlive it
    name = model.name if ours else model_identity(str(model)).replace("/", "--")
    s = night.settings.student
    return night.work / "evaluations" / name / f"{what}-{digest(s.dtype, s.max_tokens, s.server, *depends)}.json"


def _client(night: Night, model: Path, connections: int = AT_ONCE) -> StudentClient:
    s = night.settings.student
    url = night.student_url(model)
    return StudentClient(url, model.name, night.task, s.max_tokens, connections=connections)


async def _ask(night: Night, student: Path, queries: Sequence[str]) -> list[str | None]:
    async with _client(night, student) as client:
        await _check_rendering(night, client, student, queries[:RENDERED_QUERIES])
        await served_parity(night.student_url(student), student.name, student)
        with night.screen.bar("the served student answers", len(queries)) as advance:
            answers = await ask_all(client, night.task, queries, AT_ONCE, advance)
    return [answer.to_json() if answer else None for answer in answers]


async def _check_rendering(night: Night, client: StudentClient, student: Path, queries: Sequence[str]) -> None:
    """What the student was trained on must be, token for token, what the server shows it (invariants 7 and 8)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student)
    for query in queries:
        trained = tokenizer.apply_chat_template(
            messages(night.task, query), tokenize=True, add_generation_prompt=True, return_dict=False
        )
        served = await client.rendered(query)
        if served != trained:
            raise PreflightError(f"the server renders {query!r} as {served}, training rendered it as {trained}")


async def _load(night: Night, student: Path, queries: Sequence[str], levels: Sequence[int]) -> list[Latency]:
    requests = night.settings.evaluate.requests
    async with _client(night, student, max(levels)) as client:
        await load(client, queries, WARM_UP, WARM_UP, LOAD_SECONDS)
        found = [await load(client, queries, at_once, requests, LOAD_SECONDS) for at_once in levels]
    return [latency_of(one.at_once, one.seconds, one.tokens, one.wall) for one in found]


async def _general(night: Night, model: Path, asked: General) -> Ability:
    gate = asyncio.Semaphore(AT_ONCE)
    total = len(asked.questions) + len(asked.texts)
    async with _client(night, model) as client:
        with night.screen.bar(f"general: {model.name}"[:26], total) as advance:

            async def say(chat: Sequence[dict[str, str]]) -> str:
                async with gate:
                    said = await client.say(chat, GENERAL_TOKENS)
                advance(1)
                return said

            async def weigh(text: str) -> tuple[float, int]:
                async with gate:
                    weighed = await client.log_likelihood(text)
                advance(1)
                return weighed

            said = await asyncio.gather(*(say(one.messages) for one in asked.questions))
            weighed = await asyncio.gather(*(weigh(text) for text in asked.texts))
    answered = [right(text, one.answer) for text, one in zip(said, asked.questions, strict=True)]
    return Ability(answered, [nats for nats, _ in weighed], [tokens for _, tokens in weighed])


def footprint(model: str | Path) -> dict[str, Any]:
    """Parameters, and GiB of weights on disk, by the headers of a model folder's safetensors; None for what is not there.

    Weights packed several to a number (4-bit formats) count as fewer parameters than they are.
    """
    files = sorted(Path(model).glob("*.safetensors"))
    if not files:
        return {"parameters": None, "gib": None}
    parameters = 0
    for file in files:
        with file.open("rb") as held:
            header = json.loads(held.read(int.from_bytes(held.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for length in tensor["shape"]:
                    size *= length
                parameters += size
    return {"parameters": parameters, "gib": sum(file.stat().st_size for file in files) / 2**30}
