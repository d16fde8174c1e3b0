"""What labelling would do, without asking the teacher: whole prompts, their tokens, the time and the cost to expect."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from flows.ingest import ingest_log
from flows.label import LABELLING
from flows.night import Night
from flows.retrieve import retrieve_facts
from flows.teacher import price_of, teacher_identity
from labels.prompt import Message
from teacher.cost import cost
from teacher.plan import Request
from teacher.requests import count_pending, sample

SHOWN = 3
COUNTED = 512
ENOUGH = 100
"""Queries an earlier night must have asked for its speed to count."""


@dataclass(frozen=True)
class Forecast:
    """What a labelling run would ask, and what it would take; None where nothing tells.

    `basis` says where the expected answers' length and the speed come from.
    """

    queries: int
    to_ask: int
    prompts: list[dict[str, Any]]
    tokens_in: int
    tokens_out: int
    tokens_counted: bool
    seconds: float | None
    cost: float | None
    currency: str
    basis: str

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def forecast(night: Night) -> Forecast:
    """Run the stages before labelling, and look at what they would have the teacher asked."""
    ingest_log(night)
    retrieve_facts(night)
    file = night.folder / "requests.parquet"
    total, left = count_pending(file, night.warehouse)
    drawn = sample(file, night.warehouse, COUNTED, night.id, held=False)
    lengths, counted = _count_tokens(night, drawn)
    before = _last_labelling(night)
    per_answer = before["tokens"]["out"] / before["asked_teacher"] if before else night.settings.teacher.max_tokens
    tokens_in = round(left * sum(lengths) / len(lengths)) if lengths else 0
    tokens_out = round(left * per_answer)
    seconds = left * before["label_seconds"] / before["asked_teacher"] if before else None
    cached = round(tokens_in * before["tokens"]["cached"] / before["tokens"]["in"]) if before else 0
    price = price_of(night.settings)
    expected = (
        None
        if price.gpu_hour is not None and seconds is None
        else cost(price, seconds or 0.0, tokens_in, cached, tokens_out)
    )
    basis = (
        f"the last labelling by this teacher: {before['asked_teacher']:,} queries in {before['label_seconds']:,.0f} s"
        if before
        else "no labelling by this teacher yet: answers reckoned at their full budget, the time unknown"
    )
    shown = [_prompt(night, request, length) for request, length in zip(drawn[:SHOWN], lengths, strict=False)]
    total_cost = expected.total if expected else None
    return Forecast(total, left, shown, tokens_in, tokens_out, counted, seconds, total_cost, price.currency, basis)


def _prompt(night: Night, request: Request, tokens: int) -> dict[str, Any]:
    return {"query": request.query, "tokens": tokens, "messages": request.messages(night.task)}


def _count_tokens(night: Night, requests: list[Request]) -> tuple[list[int], bool]:
    """The prompts' tokens by the teacher's own tokenizer; about four characters a token where that is not at hand."""
    prompts: list[list[Message]] = [request.messages(night.task) for request in requests]
    teacher = night.settings.teacher
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(teacher.model, revision=teacher.revision or "main")
    except (OSError, ValueError):  # a server's model, by a name that is no model's on the Hub
        return [sum(len(message["content"]) for message in prompt) // 4 for prompt in prompts], False
    return [
        len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)) for prompt in prompts
    ], True


def _last_labelling(night: Night) -> dict[str, Any] | None:
    """What the latest night with this teacher that asked enough of it measured."""
    model = teacher_identity(night.settings)
    for file in sorted((night.work / "nights").glob(f"*/{LABELLING}"), reverse=True):
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if found["model"] == model and found["asked_teacher"] >= ENOUGH:
            return found
    return None
