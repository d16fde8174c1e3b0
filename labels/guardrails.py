"""Checks every answer passes, the teacher's at night and the student's by day, named on a task's fields.

    brand: Annotated[str, Grounded(), Length(most=40)] = Field(description="its maker")
    category: Annotated[str, InTaxonomy("categories.txt"), Similar(0.2)] = Field(description="its shelf")

An empty value passes them all: abstaining is an answer.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rapidfuzz import fuzz, process

from labels.errors import SettingsError
from labels.normalise import normalise
from labels.task import Task

if TYPE_CHECKING:
    from labels.embed import Embedder  # scikit-learn is loaded only where a task asks for similarity

_GLUED = re.compile(r"(?<=\d)(?=[^\W\d])")  # "4pk" is two words
_BELOW_1 = 0.999
_SHOWN = 80


@dataclass(frozen=True)
class Grounded:
    """Every word of the value stands in the query or in the facts, allowing for typos, plurals and abbreviations."""

    threshold: float = 0.75
    name: ClassVar[str] = "grounded"

    def __post_init__(self) -> None:
        _check_share(self)

    def figure(self, value: str, query: str, facts: Iterable[str]) -> float:
        """How well the least supported word of `value` is supported, 0 to 1; facts are in normal form."""
        evidence = _GLUED.sub(" ", " ".join([query, *facts])).split()
        joined = query.replace(" ", "")
        words = value.split()
        if value.replace(" ", "") in joined or _initials(words) in evidence:
            return 1.0
        return min((_support(word, evidence, joined) for word in words), default=1.0)


@dataclass(frozen=True)
class InTaxonomy:
    """The value is one of a closed set: given here, or in a text file beside the task's module, one value a line.

    (A task of a notebook has no module's file: there the path is the working folder's.)
    """

    values: str | Sequence[str]
    name: ClassVar[str] = "in_taxonomy"
    threshold: ClassVar[float] = 1.0

    def loaded(self, task: type[Task]) -> "InTaxonomy":
        """The same with its file read. Raises SettingsError where that can't be read or holds no value."""
        if not isinstance(self.values, str):
            return self
        path = Path(getattr(sys.modules[task.__module__], "__file__", None) or "").parent / self.values
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"task {task.name}: InTaxonomy({self.values!r}): wanted a UTF-8 text file {path}, one value a line, "
                f"or a list of values; reading it failed: {error}"
            ) from None
        return InTaxonomy(tuple(lines))

    @cached_property
    def normal(self) -> frozenset[str]:
        """The values in normal form, as a task's answers are."""
        return frozenset(filter(None, map(normalise, self.values)))

    def figure(self, value: str, query: str, facts: Iterable[str]) -> float:
        """1 for one of the values, else how near the nearest is (rapidfuzz's ratio), below 1."""
        if value in self.normal:
            return 1.0
        near = process.extractOne(value, self.normal, scorer=fuzz.ratio)
        return min(near[1] / 100, _BELOW_1) if near else 0.0


@dataclass(frozen=True)
class Similar:
    """The value is near the query by meaning: the cosine of their embeddings is at least `threshold`, above 0 to 1.

    As Instacart filters categories ("Building the Intent Engine", tech.instacart.com, November 2025). A threshold
    suits one embedder alone: `ngrams`, or a sentence-transformers model by its folder or Hub name.
    """

    threshold: float
    embedder: str = "ngrams"
    name: ClassVar[str] = "similar"

    def __post_init__(self) -> None:
        _check_share(self)


@dataclass(frozen=True)
class Length:
    """The value has at most so many characters."""

    most: int
    name: ClassVar[str] = "length"

    def __post_init__(self) -> None:
        if type(self.most) is not int or self.most < 1:
            raise SettingsError(f"{self!r}: wanted a whole number of characters, at least 1")

    @property
    def threshold(self) -> float:
        """The most characters."""
        return self.most

    def figure(self, value: str, query: str, facts: Iterable[str]) -> float:
        """The value's characters."""
        return len(value)


Guardrail = Grounded | InTaxonomy | Similar | Length
Cosines = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Rejection:
    """Why a guardrail turned an answer down: which, on what, its figure and its threshold."""

    guardrail: str
    field: str
    value: str
    figure: float
    threshold: float

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= _SHOWN else self.value[:_SHOWN] + "…"
        what = f"{self.guardrail}: {self.field} {shown!r}"
        if self.guardrail == Length.name:
            return f"{what} has {self.figure:.0f} characters, may have {self.threshold:.0f}"
        return f"{what} scores {self.figure:.2f}, needs {self.threshold:.2f}"


@cache
def guardrails_of(task: type[Task]) -> dict[str, tuple[Guardrail, ...]]:
    """The guardrails of each field, in their order, ready for use.

    Raises SettingsError where one can't be used: a class instead of an instance, a taxonomy without values.
    """
    rails: dict[str, tuple[Guardrail, ...]] = {}
    for field, info in task.model_fields.items():
        for rail in info.metadata:
            if rail in (Grounded, InTaxonomy, Similar, Length):
                raise SettingsError(f"task {task.name}, field {field}: wanted {rail.__name__}(…), got the bare class")
        held = [rail for rail in info.metadata if isinstance(rail, Guardrail)]
        rails[field] = tuple(rail.loaded(task) if isinstance(rail, InTaxonomy) else rail for rail in held)
        if any(isinstance(rail, InTaxonomy) and not rail.normal for rail in rails[field]):
            raise SettingsError(f"task {task.name}, field {field}: its taxonomy is empty; wanted at least one value")
    return rails


def check(answer: Task, query: str, facts: Sequence[str] = ()) -> Rejection | None:
    """The first guardrail that turns `answer` down, or None. `query` and `facts` are what the model was shown."""
    return check_all([answer], [query], [facts])[0]


def check_all(
    answers: Sequence[Task], queries: Sequence[str], facts: Sequence[Sequence[str]]
) -> list[Rejection | None]:
    """For each answer, all of one task, the first guardrail that turns it down, or None.

    Fields are taken in their order, a list's values alphabetically, guardrails as they are named. What `Similar`
    compares is embedded at once.
    """
    if not answers:
        return []
    rails = guardrails_of(type(answers[0]))
    values = [_values(answer) for answer in answers]
    cosines = _cosines(rails, values, queries)
    return [_first(rails, own, query, shown, cosines) for own, query, shown in zip(values, queries, facts, strict=True)]


@dataclass(frozen=True)
class Margin:
    """How narrowly a value passes a guardrail: `share` is 0 at the threshold, 1 as far from it as can be, below 0 if not."""

    guardrail: str
    field: str
    value: str
    figure: float
    threshold: float
    share: float


def margins(answers: Sequence[Task], queries: Sequence[str], facts: Sequence[Sequence[str]]) -> list[Margin | None]:
    """For each answer, all of one task, what passes most narrowly; None where nothing can.

    Of a closed set, as of a threshold of 1, there is no narrow pass.
    """
    if not answers:
        return []
    rails = guardrails_of(type(answers[0]))
    values = [_values(answer) for answer in answers]
    cosines = _cosines(rails, values, queries)
    found = []
    for own, query, shown in zip(values, queries, facts, strict=True):
        normal = [normalise(fact) for fact in shown]
        each = [_margin(rail, pair, query, normal, cosines) for pair in own for rail in rails[pair[0]]]
        found.append(min((one for one in each if one), key=lambda one: one.share, default=None))
    return found


def _margin(
    rail: Guardrail, pair: tuple[str, str], query: str, facts: Sequence[str], cosines: dict[str, Cosines]
) -> Margin | None:
    field, value = pair
    if isinstance(rail, InTaxonomy) or (rail.threshold == 1 and not isinstance(rail, Length)):
        return None
    figure = cosines[rail.embedder][value, query] if isinstance(rail, Similar) else rail.figure(value, query, facts)
    if isinstance(rail, Length):
        share = (rail.threshold - figure) / rail.threshold
    else:
        share = (figure - rail.threshold) / (1 - rail.threshold)
    return Margin(rail.name, field, value, round(figure, 3), rail.threshold, round(share, 4))


def _values(answer: Task) -> list[tuple[str, str]]:
    """The answer's (field, value) pairs in a stable order; an empty value is none."""
    place = {name: number for number, name in enumerate(type(answer).model_fields)}
    return sorted(answer.items(), key=lambda pair: (place[pair[0]], pair[1]))


def _first(
    rails: dict[str, tuple[Guardrail, ...]],
    values: Sequence[tuple[str, str]],
    query: str,
    facts: Sequence[str],
    cosines: dict[str, Cosines],
) -> Rejection | None:
    facts = [normalise(fact) for fact in facts]
    for field, value in values:
        for rail in rails[field]:
            figure = (
                cosines[rail.embedder][value, query] if isinstance(rail, Similar) else rail.figure(value, query, facts)
            )
            if figure > rail.threshold if isinstance(rail, Length) else figure < rail.threshold:
                return Rejection(rail.name, field, value, round(figure, 3), rail.threshold)
    return None


def _cosines(
    rails: dict[str, tuple[Guardrail, ...]], values: Sequence[Sequence[tuple[str, str]]], queries: Sequence[str]
) -> dict[str, Cosines]:
    """By embedder the cosine of each (value, query) that a field wants compared."""
    wanted: dict[str, dict[tuple[str, str], None]] = {}
    for own, query in zip(values, queries, strict=True):
        for field, value in own:
            for rail in rails[field]:
                if isinstance(rail, Similar):
                    wanted.setdefault(rail.embedder, {})[value, query] = None
    return {embedder: _compared(_embedder(embedder), list(pairs)) for embedder, pairs in wanted.items()}


def _compared(embedder: "Embedder", pairs: list[tuple[str, str]]) -> Cosines:
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    row = {text: number for number, text in enumerate(texts)}
    vectors = embedder.embed(texts)
    left, right = (vectors[[row[pair[side]] for pair in pairs]] for side in (0, 1))
    # Rounded: in 32 bits a text is 0.9999999 near itself.
    return {pair: round(float(cosine), 6) for pair, cosine in zip(pairs, (left * right).sum(axis=1), strict=True)}


@cache
def _embedder(name: str) -> "Embedder":
    from labels.embed import open_embedder

    return open_embedder(name)


def _check_share(rail: Grounded | Similar) -> None:
    share = rail.threshold
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise SettingsError(f"{rail!r}: wanted a threshold above 0 and at most 1")


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
