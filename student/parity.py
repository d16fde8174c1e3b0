"""Whether the served student is the one that was merged: the server's own figures against what was kept at the merge."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from labels.errors import EngineError, ParityError
from labels.files import read_manifest, write_json
from student.reference import read_reference

SERVED = "served.json"
AT_ONCE = 32


@dataclass(frozen=True)
class Bounds:
    """What a served student may differ by.

    `max_difference` and `mean_difference`: of a token's log-probability, nats; `same_next_token`: the least share of
    places where both think the same token likeliest; `same_answers`: of greedy answers that are the same.
    """

    max_difference: float
    mean_difference: float
    same_next_token: float
    same_answers: float


BOUNDS = {
    "float32": Bounds(0.01, 0.001, 0.999, 0.98),
    "float16": Bounds(0.1, 0.01, 0.99, 0.95),
    "bfloat16": Bounds(0.5, 0.05, 0.98, 0.95),
}
"""By serving type. Measured on the demo's student behind vLLM, 64 queries: at most 8e-6 in float32, 0.011 in float16, 0.11
in bfloat16 (0.009 on average, 99.8% of next tokens, all answers). Large models have larger logits, which in bfloat16 come
in steps of 0.125 from 16 on, and a log-probability moves by up to twice a logit's error. One near tie makes another
answer, so answers have more room than tokens."""


@dataclass(frozen=True)
class Parity:
    """How far a server is from the model it was given, in the words of `Bounds`, over so many queries and tokens."""

    queries: int
    tokens: int
    max_difference: float
    mean_difference: float
    same_next_token: float
    same_answers: float

    def within(self, bounds: Bounds) -> bool:
        """Whether it is in all of them; a figure that is no number is in none."""
        return (
            self.max_difference <= bounds.max_difference
            and self.mean_difference <= bounds.mean_difference
            and self.same_next_token >= bounds.same_next_token
            and self.same_answers >= bounds.same_answers
        )


async def served_parity(url: str, name: str, folder: Path) -> Parity | None:
    """Compare the server at `url`, which calls the model `name`, with the student in `folder` as it was when merged.

    The figures are written to its served.json, whatever they are. A quantised variant is compared with the student it was
    made of, and not judged: that is the gate's part. None for a model that no merge left bounds for (a base). Raises
    ParityError where the figures are out of the bounds in the manifest, or what to compare with is gone; EngineError where
    the server gives no answer.
    """
    made = read_manifest(folder) or {}
    given = made.get("parity", {}).get("served_bounds")
    if not given and "quantised_from" not in made:
        return None
    rows = read_reference(folder)
    gate = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as http:

        async def one(row: Mapping[str, Any]) -> tuple[list[float], list[bool], bool]:
            async with gate:
                return await _compare(http, name, row)

        found = await asyncio.gather(*(one(row) for row in rows))
    differences = [difference for some, _, _ in found for difference in some]
    same = [alike for _, some, _ in found for alike in some]
    parity = Parity(
        queries=len(rows),
        tokens=len(differences),
        max_difference=round(max(differences), 6),
        mean_difference=round(sum(differences) / len(differences), 6),
        same_next_token=sum(same) / len(same),
        same_answers=sum(alike for _, _, alike in found) / len(found),
    )
    bounds = Bounds(**given) if given else None
    write_json(folder / SERVED, asdict(parity) | {"bounds": given, "within": parity.within(bounds) if bounds else None})
    if bounds and not parity.within(bounds):
        raise ParityError(
            f"the server's {name} is not the model in {folder}: log-probabilities differ by up to "
            f"{parity.max_difference:.2g} ({bounds.max_difference:g} allowed), {parity.mean_difference:.2g} on average "
            f"({bounds.mean_difference:g}), {parity.same_next_token:.1%} of next tokens are the same "
            f"({bounds.same_next_token:.1%} wanted) and {parity.same_answers:.1%} of answers "
            f"({bounds.same_answers:.1%}). See that the server runs in the student's dtype and with its chat template, "
            "and what [student.server] changes (quantization, kv-cache-dtype, rope); the release stays as it was"
        )
    return parity


async def _compare(http: httpx.AsyncClient, name: str, row: Mapping[str, Any]) -> tuple[list[float], list[bool], bool]:
    """Of one query: each token's difference, whether each place's likeliest token is the same, and the whole answer."""
    given = await _complete(http, model=name, prompt=[*row["prompt"], *row["answer"]], max_tokens=1, prompt_logprobs=1)
    said = await _complete(
        http, model=name, prompt=row["prompt"], max_tokens=max(len(row["greedy"]), 1), return_token_ids=True
    )
    differences, same = [], []
    try:
        tokens = [*row["prompt"], *row["answer"]][1:]
        places = zip(given["prompt_logprobs"][1:], tokens, row["logprobs"], row["likeliest"], strict=True)
        for place, token, logprob, likeliest in places:
            differences.append(abs(float(place[str(token)]["logprob"]) - logprob))
            same.append(place.get(str(likeliest), {}).get("rank") == 1)
        return differences, same, said["token_ids"] == row["greedy"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(
            f"the student's server gave no log-probabilities of a prompt: {type(error).__name__}: {error}; "
            "wanted vLLM's prompt_logprobs and token_ids"
        ) from error


async def _complete(http: httpx.AsyncClient, **request: object) -> dict[str, Any]:
    """The one choice of a completion at temperature 0."""
    try:
        response = await http.post("/v1/completions", json={"temperature": 0.0, **request})
        response.raise_for_status()
        choice: dict[str, Any] = response.json()["choices"][0]
    except (httpx.HTTPError, KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineError(f"the student's server gave no answer: {type(error).__name__}: {error}") from error
    return choice
