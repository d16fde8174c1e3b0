"""Sampling the served student: several answers a query, and the best of them by guardrails, agreement and confidence.

Best of n, as in Llama 3's rejection sampling (Llama team 2024, arXiv:2407.21783, §4.2.2): what passes the guardrails,
then what most samples say (self-consistency: Wang et al. 2022, arXiv:2203.11171), then what was likeliest.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import httpx

from labels.confidence import field_confidence
from labels.errors import EngineError, InputError
from labels.files import digest
from labels.guardrails import check_all
from labels.prompt import messages
from labels.task import Task


@dataclass(frozen=True)
class Sampling:
    """How the student is sampled: `samples` answers a query at `temperature`, of at most `max_tokens` tokens."""

    samples: int
    temperature: float
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Best:
    """The best of a query's samples as the task's JSON, the share of the samples that say so, and its confidence: that
    share times the mean probability of its least sure field's tokens, 0 to 1.
    """

    value: str
    agreement: float
    confidence: float


async def sample_all(
    url: str,
    model: str,
    task: type[Task],
    queries: Sequence[str],
    sampling: Sampling,
    at_once: int,
    progress: Callable[[int], None],
) -> list[Best | None]:
    """The best answer to each query; None where no sample is an answer that passes the guardrails.

    Raises EngineError where the server gives no answer to more than a tenth of them.
    """
    gate = asyncio.Semaphore(at_once)
    failures: list[str] = []
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(base_url=url, timeout=120.0, limits=limits, trust_env=False) as client:

        async def one(query: str) -> list[tuple[str, float]]:
            async with gate:
                try:
                    response = await client.post("/v1/chat/completions", json=request(model, task, query, sampling))
                    response.raise_for_status()
                    return [said for choice in response.json()["choices"] if (said := _answer(task, choice))]
                except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
                    failures.append(f"{type(error).__name__}: {error}")
                    return []
                finally:
                    progress(1)

        answers = await asyncio.gather(*(one(query) for query in queries))
    if len(failures) > len(queries) / 10:
        raise EngineError(
            f"the student's server gave no samples of {len(failures)} of {len(queries)} queries, first with: {failures[0]}"
        )
    return [best(task, query, given, sampling.samples) for query, given in zip(queries, answers, strict=True)]


def request(model: str, task: type[Task], query: str, sampling: Sampling) -> dict[str, Any]:
    """What the server is asked; the same prompt and the same schema as the student is served with."""
    return {
        "model": model,
        "messages": messages(task, query),
        "n": sampling.samples,
        "temperature": sampling.temperature,
        "seed": int(digest("sample", query), 16) % 2**31,
        "max_tokens": sampling.max_tokens,
        "logprobs": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": task.name, "schema": task.json_schema()}},
    }


def best(task: type[Task], query: str, given: Sequence[tuple[str, float]], asked: int) -> Best | None:
    """The best of the answers `given` (the task's JSON, its confidence) by `asked` samples; None where none passes."""
    sure = defaultdict[str, list[float]](list)
    for value, confidence in given:
        sure[value].append(confidence)
    parsed = [task.parse(value) for value in sure]
    refused = check_all(parsed, [query] * len(parsed), [()] * len(parsed))
    passing = [value for value, rejection in zip(sure, refused, strict=True) if rejection is None]
    if not passing:
        return None
    kept = max(passing, key=lambda value: (len(sure[value]), fmean(sure[value])))
    agreement = len(sure[kept]) / asked
    return Best(kept, agreement, round(agreement * fmean(sure[kept]), 4))


def _answer(task: type[Task], choice: Mapping[str, Any]) -> tuple[str, float] | None:
    """A sample's answer in normal form, as JSON, and its confidence; None where it is cut short or no answer."""
    if choice["finish_reason"] != "stop":
        return None
    text: str = choice["message"]["content"] or ""
    pieces = [(token["token"], token["logprob"]) for token in choice["logprobs"]["content"]]
    try:
        return task.parse(text).to_json(), min(field_confidence(task, text, pieces).values())
    except (InputError, ValueError):
        return None
