"""Checks every answer passes, the teacher's at night and the student's by day, named on a task's fields."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from labels.normalise import normalise
from labels.task import Task

_GLUED = re.compile(r"(?<=\d)(?=[^\W\d])")  # "4pk" is two words


@dataclass(frozen=True)
class Grounded:
    """Every word of the value stands in the query or in the facts, allowing for typos, plurals and abbreviations."""

    threshold: float = 0.75

    def figure(self, value: str, query: str, facts: Iterable[str]) -> float:
        """How well the least supported word of `value` is supported, 0 to 1."""
        evidence = _GLUED.sub(" ", " ".join([query, *facts])).split()
        joined = query.replace(" ", "")
        words = value.split()
        if value.replace(" ", "") in joined or _initials(words) in evidence:
            return 1.0
        return min((_support(word, evidence, joined) for word in words), default=1.0)


@dataclass(frozen=True)
class Rejection:
    """Why a guardrail turned an answer down: which, on what, its figure and its threshold."""

    guardrail: str
    field: str
    value: str
    figure: float
    threshold: float

    def __str__(self) -> str:
        return f"{self.guardrail}: {self.field} {self.value!r} scores {self.figure:.2f}, needs {self.threshold:.2f}"


def check(answer: Task, query: str, facts: Sequence[str] = ()) -> Rejection | None:
    """The first guardrail that turns `answer` down, or None. `query` and `facts` are what the model was shown."""
    fields = type(answer).model_fields
    facts = [normalise(fact) for fact in facts]
    for name, value in sorted(answer.items(), key=lambda pair: (list(fields).index(pair[0]), pair[1])):
        for rail in fields[name].metadata:
            if isinstance(rail, Grounded) and (figure := rail.figure(value, query, facts)) < rail.threshold:
                return Rejection("grounded", name, value, round(figure, 3), rail.threshold)
    return None


def _support(word: str, evidence: Sequence[str], joined: str) -> float:
    if word in evidence or (len(word) > 2 and word in joined):
        return 1.0
    if any(_abbreviates(seen, word) for seen in evidence):
        return 1.0
    near = process.extractOne(word, evidence, scorer=fuzz.ratio)
    inside = fuzz.partial_ratio(word, joined) if len(word) > 3 else 0.0  # a typo in words written as one
    return max(near[1] if near else 0.0, inside) / 100


def _abbreviates(short: str, word: str) -> bool:
    """The word's beginning ("choc" for chocolate), or at least half of its letters in order ("pk" for pack)."""
    letters = iter(word)
    picked = short[0] == word[0] and 2 * len(short) >= len(word) and all(letter in letters for letter in short)
    return len(short) > 1 and (word.startswith(short) or picked)


def _initials(words: Sequence[str]) -> str:
    """ "gf" for gluten free; nothing for a single word."""
    return "".join(word[0] for word in words) if len(words) > 1 else "\0"
