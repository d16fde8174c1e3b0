"""Which labels train the student: the sure ones, each thing once, drawn by traffic; what people verified always."""

import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, get_args

from labels.normalise import normalise
from labels.records import Band, Label
from labels.task import Task
from student.near import collapsed, near_duplicates
from student.rows import Row, Source

Reason = Literal["rejected", "failed", "held_out", "near_gold", "unsure", "collapsed", "not_drawn"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a label is left out, in the order they are asked; the first that holds counts."""


@dataclass(frozen=True)
class Selection:
    """Which labels the student learns from.

    At most `rows` (None: all), drawn without replacement with chances by traffic to the power of `temper`. Only labels
    with a confidence of `min_confidence`; queries alike from a Jaccard similarity of `near` on, with the same answer,
    count once (1: none but equal ones). Verified rows are always in, `verified_weight` times, even above `rows`.
    `replay` names general instruction rows, of which `replay_share` for each row of ours are mixed in.
    """

    rows: int | None = None
    temper: float = 0.5
    min_confidence: float = 0.5
    near: float = 0.9
    verified_weight: int = 2
    replay: str | None = None
    replay_share: float = 0.1


def least_sure(label: Label) -> float:
    """A label is as sure as its least sure field, 0 to 1; 1 where it tells no confidence."""
    return min(label.confidence.values(), default=1.0)


def rows_of(
    labels: Iterable[Label],
    answers: Mapping[str, str],
    verified_weight: int,
    traffic: Mapping[str, float],
    bands: Mapping[str, Band],
    confidence: Callable[[Label], float],
    source: Source = "teacher",
) -> list[Row]:
    """Each label as a row, whether or not it will train. `answers`, by query, are people's and outrank the label's, which
    `source` gave.
    """
    return [
        Row(
            query=label.query,
            value=answers.get(label.query) or label.value or "",
            source="people" if label.query in answers else source,
            band=bands.get(label.query, "tail"),
            traffic=traffic.get(label.query, 1.0),
            difficulty=1 - confidence(label),
            times=verified_weight if label.query in answers else 1,
        )
        for label in labels
    ]


def measuring(queries: Sequence[str], gold: Collection[str]) -> list[Reason | None]:
    """What each query has to do with `gold`, the queries that measure: held_out, near_gold or nothing (invariant 6)."""
    evaluates = frozenset(map(normalise, gold))
    near = near_duplicates(queries, evaluates)
    return [
        "held_out" if query in evaluates else "near_gold" if close else None
        for query, close in zip(queries, near, strict=True)
    ]


def left_out(
    task: type[Task],
    labels: Sequence[Label],
    rows: Sequence[Row],
    measures: Sequence[Reason | None],
    selection: Selection,
    seed: int,
) -> list[Reason | None]:
    """For each label why it does not train, None where it does. `rows` are `rows_of` the labels, `measures` as `measuring`.

    Whatever the order of the labels, each has the same fate.
    """
    hardest = 1 - selection.min_confidence
    reasons = [
        _unfit(label, row) or measure or ("unsure" if row.source == "teacher" and row.difficulty > hardest else None)
        for label, row, measure in zip(labels, rows, measures, strict=True)
    ]
    for place in _repeats(task, rows, _open(reasons), selection.near):
        reasons[place] = "collapsed"
    for place in _undrawn(rows, _open(reasons), selection, seed):
        reasons[place] = "not_drawn"
    return reasons


def chance(seed: int, text: str) -> float:
    """A number strictly between 0 and 1, uniform over texts: a text's own, whatever other texts there are."""
    key = blake2b(f"{seed} {text}".encode(), digest_size=8).digest()
    return (int.from_bytes(key, "big") >> 12) / 2**52 + 2**-53


def _unfit(label: Label, row: Row) -> Reason | None:
    if row.source == "people" or (label.status == "accepted" and row.value):
        return None
    return "rejected" if label.status == "rejected" else "failed"


def _open(reasons: Sequence[Reason | None]) -> list[int]:
    return [place for place, reason in enumerate(reasons) if reason is None]


def _repeats(task: type[Task], rows: Sequence[Row], places: Iterable[int], near: float) -> list[int]:
    """The places of rows that say again what another says: verified ones come first, then those asked most."""

    def worth(place: int) -> tuple[bool, float, float, str, str]:
        row = rows[place]
        return row.source != "people", -row.traffic, row.difficulty, row.query, row.value

    ordered = sorted(places, key=worth)
    first = {rows[place].query: place for place in reversed(ordered)}
    equal = [place for place in ordered if first[rows[place].query] != place]
    ours = [place for place in ordered if first[rows[place].query] == place]
    said = {value: str(sorted(task.parse(value).items())) for value in {rows[place].value for place in ours}}
    alike = collapsed([rows[place].query for place in ours], [said[rows[place].value] for place in ours], near)
    return equal + [
        place for place, is_alike in zip(ours, alike, strict=True) if is_alike and not _verified(rows[place])
    ]


def _undrawn(rows: Sequence[Row], places: Sequence[int], selection: Selection, seed: int) -> list[int]:
    """The places of rows beyond `selection.rows`, verified ones never.

    Weighted sampling without replacement by keys u^(1/w) (Efraimidis & Spirakis 2006, Inf. Process. Lett. 97:181-185),
    here in their order-preserving form log w - log(-log u), which neither over- nor underflows. u is the query's own.
    """
    if selection.rows is None or len(places) <= selection.rows:
        return []

    def key(place: int) -> float:
        weight = selection.temper * math.log(max(rows[place].traffic, sys.float_info.min))
        return weight - math.log(-math.log(chance(seed, rows[place].query)))

    drawn = sorted((place for place in places if not _verified(rows[place])), key=key, reverse=True)
    return drawn[max(0, selection.rows - (len(places) - len(drawn))) :]


def _verified(row: Row) -> bool:
    return row.source == "people"
