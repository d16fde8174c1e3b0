"""What the page shows of a label: the query word by word with its slots, the fields, the evidence. Never the part."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from evals.queue import Given
from labels.errors import InputError
from labels.guardrails import InTaxonomy, guardrails_of
from labels.normalise import normalise
from labels.records import Verdict
from labels.task import Task

LONG = 400
"""Characters from which a query gets a box that scrolls."""
JOINERS = "\u200c\u200d"  # they shape emoji and whole scripts, and hide nothing

Values = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Run:
    """Words of the query that stand together: a slot of the field `number` (`name`), or of none (0, "")."""

    words: tuple[str, ...]
    number: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """A value and the places of its words in the query; none where it does not stand there."""

    text: str
    places: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the task: the draft's values, those that correcting begins with, and the teacher's confidence."""

    number: int
    name: str
    means: str
    several: bool
    closed: bool
    draft: tuple[Value, ...]
    edited: tuple[Value, ...]
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Shown:
    """All that the page says of one label. A hidden gold item can't be told from an audit item by it."""

    lease: str
    words: tuple[str, ...]
    runs: tuple[Run, ...]
    long: bool
    fields: tuple[Field, ...]
    has_draft: bool
    band: str
    traffic: float
    reason: str
    facts: tuple[tuple[str, float | None], ...]
    examples: tuple[tuple[str, tuple[tuple[str, str], ...], float], ...]
    before: str
    note: str


def show(given: Given, task: type[Task], typed: Values | None = None) -> Shown:
    """What the page says of `given`. `typed` is a correction that was not taken and is to be corrected further."""
    label, earlier = given.item.label, given.before
    words = tuple(label.query.split())
    draft = values_of(task, label.value)
    edited = typed or (values_of(task, earlier.value) if earlier else None) or draft or {}
    drafted, editing = located(words, draft or {}), located(words, edited)
    fields = tuple(
        Field(
            number=number,
            name=name,
            means=info.description or "",
            several=task.is_list(name),
            closed=any(isinstance(rail, InTaxonomy) for rail in guardrails_of(task)[name]),
            draft=drafted.get(name, ()),
            edited=editing.get(name, ()),
            confidence=label.confidence.get(name),
        )
        for number, (name, info) in enumerate(task.model_fields.items(), 1)
    )
    return Shown(
        lease=given.lease,
        words=words,
        runs=_runs(words, fields),
        long=len(label.query) > LONG,
        fields=fields,
        has_draft=draft is not None,
        band=given.item.band,
        traffic=given.item.traffic,
        reason=given.item.reason if given.item.part == "active" else "",
        facts=tuple(zip(label.facts, [*label.scores, *[None] * len(label.facts)], strict=False)),
        examples=tuple((one.query, _pairs(task, one.value), one.score) for one in label.examples),
        before=earlier.decision if earlier else "",
        note=earlier.note if earlier else "",
    )


def place(words: Sequence[str], values: Sequence[str]) -> list[tuple[int, ...]]:
    """Where each value's words stand among `words`: side by side where they do so, else one by one, each the first
    that no value before has. Empty for a value of which a word is missing.
    """
    used: set[int] = set()
    found = []
    for value in values:
        wanted = value.split()
        places = _side_by_side(words, wanted, used) or _one_by_one(words, wanted, used)
        used.update(places)
        found.append(tuple(places))
    return found


def _side_by_side(words: Sequence[str], wanted: Sequence[str], used: set[int]) -> list[int]:
    size = len(wanted)
    for start in range(len(words) - size + 1):
        if list(words[start : start + size]) == wanted and used.isdisjoint(range(start, start + size)):
            return list(range(start, start + size))
    return []


def _one_by_one(words: Sequence[str], wanted: Sequence[str], used: set[int]) -> list[int]:
    free: dict[str, list[int]] = {word: [] for word in wanted}
    for at, word in enumerate(words):
        if word in free and at not in used:
            free[word].append(at)
    first = {word: iter(places) for word, places in free.items()}
    found = [next(first[word], None) for word in wanted]
    return [] if None in found else [at for at in found if at is not None]


def located(words: Sequence[str], values: Values) -> dict[str, tuple[Value, ...]]:
    """The values by field, each with its places; a word belongs to one value."""
    flat = [(name, text) for name, texts in values.items() for text in texts]
    places = place(words, [text for _, text in flat])
    found: dict[str, list[Value]] = {name: [] for name in values}
    for (name, text), at in zip(flat, places, strict=True):
        found[name].append(Value(text, at))
    return {name: tuple(some) for name, some in found.items()}


def values_of(task: type[Task], text: str | None) -> dict[str, list[str]] | None:
    """The values by field of an answer in JSON; None where there is no answer or it is not this task's."""
    try:
        answer = task.parse(text) if text is not None else None
    except InputError:
        return None
    if answer is None:
        return None
    held = {name: getattr(answer, name) for name in task.model_fields}
    return {name: value if isinstance(value, list) else [value] * bool(value) for name, value in held.items()}


def allowed(task: type[Task]) -> dict[str, list[str]]:
    """By number of field the values of a closed one, in normal form and in the taxonomy's order."""
    rails = enumerate(guardrails_of(task).values(), 1)
    closed = [(str(number), rail) for number, held in rails for rail in held if isinstance(rail, InTaxonomy)]
    return {number: list(dict.fromkeys(filter(None, map(normalise, rail.values)))) for number, rail in closed}


def changes(task: type[Task], verdict: Verdict) -> list[tuple[str, str, str]]:
    """(field, draft, answer) of a verdict, for the fields that have either; the raw texts where they are no answers."""
    draft, answer = values_of(task, verdict.draft), values_of(task, verdict.value)
    if (verdict.draft and draft is None) or (verdict.value and answer is None):
        return [("", verdict.draft or "", verdict.value or "")]
    before, after = [{name: " · ".join(held) for name, held in (side or {}).items()} for side in (draft, answer)]
    rows = [(name, before.get(name, ""), after.get(name, "")) for name in task.model_fields]
    return [row for row in rows if row[1] or row[2]]


def visible(text: object) -> str:
    """A stranger's text without anything that hides or steers: control and format characters as signs one can see."""
    plain = str(text)
    return plain if plain.isprintable() else "".join(map(_sign, plain))


def _sign(char: str) -> str:
    if char in JOINERS or char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    if char < " ":
        return chr(0x2400 + ord(char))
    return f"⟨U+{ord(char):04X}⟩"


def _runs(words: Sequence[str], fields: Sequence[Field]) -> tuple[Run, ...]:
    """The query's words, those side by side of one value as one run."""
    owner = {at: (field, number) for field in fields for number, one in enumerate(field.draft) for at in one.places}
    runs = []
    for held, places in groupby(range(len(words)), key=owner.get):
        some = tuple(words[at] for at in places)
        runs.append(Run(some, held[0].number, held[0].name) if held else Run(some))
    return tuple(runs)


def _pairs(task: type[Task], value: str) -> tuple[tuple[str, str], ...]:
    """(field, value) of an example's answer; as it is where it is not this task's."""
    values = values_of(task, value)
    if values is None:
        return (("", json.dumps(value, ensure_ascii=False)),)
    return tuple((name, text) for name, texts in values.items() for text in texts)
