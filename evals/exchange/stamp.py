"""A verdict's trip through a tool: what the tool does not keep of it travels beside it, in data the tool leaves alone.

So a verdict that comes back as it went out is the same verdict, and importing it adds nothing.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from labels.files import digest
from labels.records import Verdict


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is kept of a verdict: `key` is its id in the tool, `answer` a hash of what it said."""

    key: str
    answer: str
    id: str
    reviewer: str
    created: str
    seconds: float
    simulated: bool


_STAMP = TypeAdapter(Stamp)


def stamp(key: str, verdict: Verdict) -> dict[str, Any]:
    """What travels with the verdict that is `key` in the tool."""
    kept = Stamp(
        key, _answer(verdict), verdict.id, verdict.reviewer, verdict.created, verdict.seconds, verdict.simulated
    )
    return asdict(kept)


def returned(keys: Iterable[str], verdict: Verdict, stamps: Iterable[object]) -> Verdict | None:
    """The verdict that went out as one of `keys`, where `verdict` says the same still; else None."""
    wanted = set(keys)
    for given in stamps:
        try:
            kept = _STAMP.validate_python(given)
        except ValidationError:
            continue
        if kept.key in wanted and kept.answer == _answer(verdict):
            return replace(
                verdict,
                id=kept.id,
                reviewer=kept.reviewer,
                created=kept.created,
                seconds=kept.seconds,
                simulated=kept.simulated,
            )
    return None


def _answer(verdict: Verdict) -> str:
    """A hash of what was said; a tool may bring a list's values back in another order."""
    value = json.loads(verdict.value) if verdict.value else {}
    sets = {name: sorted(one) if isinstance(one, list) else one for name, one in value.items()}
    return digest(verdict.decision, sets, verdict.note)
