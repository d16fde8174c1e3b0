"""Precision, recall and F1 of answers against gold, with 95% intervals, weighted by traffic where asked.

The unit is the (field, value) pair of `Task.items()`, pooled over queries ("micro" averages). An answer of None
(failed, rejected, none at all) counts as no pair found: it lowers recall and is never left out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evals.intervals import wilson
from labels.errors import InputError
from labels.task import Task

Pairs = Sequence[tuple[Task | None, Task]]
Interval = tuple[float, float]
Floats = NDArray[np.float64]

RESAMPLES = 1_000


@dataclass(frozen=True)
class FieldScore:
    """Precision, recall and F1 of one field, 0 to 1, with their 95% intervals."""

    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval
    f1: float
    f1_interval: Interval


@dataclass(frozen=True)
class Score(FieldScore):
    """How well answers match gold: shares of 0 to 1 with their 95% intervals.

    Precision, recall and F1 pool the pairs of all fields ("micro"); `macro_f1` is the mean of the fields' F1, each field
    alike (those that neither an answer nor the gold names left out). `exact` is the share of queries answered wholly
    right, `invalid_rate` the share with no answer; like all figures but `queries` (a count) they are weighted by traffic
    where weights were given.
    """

    macro_f1: float
    macro_f1_interval: Interval
    exact: float
    exact_interval: Interval
    invalid_rate: float
    queries: int
    by_field: dict[str, FieldScore]

    def to_json(self) -> dict[str, object]:
        """A dict `json.dumps` takes, its figures rounded to four places."""
        return {name: _rounded(part) for name, part in asdict(self).items()}


def score(pairs: Pairs, weights: Sequence[float] | None = None, seed: int = 0) -> Score:
    """Score (answer, gold) pairs, one a query; `weights` are the queries' traffic (all alike where None).

    A ratio with nothing below the line (no pair answered, none in the gold) is 0, as scikit-learn's
    `zero_division=0`. Intervals are percentile bootstraps over queries, since the pairs within a query are not
    independent (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13); see `_interval` for the one
    exception. Raises InputError where there is no pair or the weights do not fit.
    """
    weight = _weights(pairs, weights)
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    counts = _counts(pairs) * weight[:, None, None]
    exact = weight * [answer is not None and answer.items() == gold.items() for answer, gold in pairs]
    draws = _resampled(np.column_stack([counts.reshape(len(pairs), -1), exact, weight]), seed)
    found, drawn = counts.sum(axis=0), draws[:, :-2].reshape(len(draws), -1, 3)
    macro, right = float(_macro(found)), float(exact.sum() / weight.sum())
    return Score(
        **vars(_prf_score(found.sum(axis=0), drawn.sum(axis=1), effective)),
        macro_f1=macro,
        macro_f1_interval=_interval(_macro(drawn), macro, effective),
        exact=right,
        exact_interval=_interval(draws[:, -2] / draws[:, -1], right, effective),
        invalid_rate=float(weight @ [answer is None for answer, _ in pairs] / weight.sum()),
        queries=len(pairs),
        by_field={
            name: _prf_score(found[place], drawn[:, place], effective) for place, name in enumerate(_fields(pairs))
        },
    )


def ratio_interval(
    a_pairs: Pairs, b_pairs: Pairs, weights: Sequence[float] | None = None, seed: int = 0
) -> Interval | None:
    """The 95% interval of F1(a) / F1(b) on the same queries in the same order; None where F1(b) is 0.

    A paired bootstrap: each resample draws queries once and scores both on them (Efron & Tibshirani 1993, ch. 8).
    Resamples in which F1(b) is 0 are left out. Raises InputError where the two are not of the same queries.
    """
    weight, (_, b), (drawn_a, drawn_b) = _paired(a_pairs, b_pairs, weights, seed)
    if _prf((b * weight[:, None]).sum(axis=0))[2] == 0:
        return None
    f1_a, f1_b = _prf(drawn_a)[:, 2], _prf(drawn_b)[:, 2]
    kept = f1_b > 0
    low, high = np.percentile(f1_a[kept] / f1_b[kept], [2.5, 97.5])
    return float(low), float(high)


def difference_interval(
    a_pairs: Pairs,
    b_pairs: Pairs,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    figure: Literal["precision", "recall", "f1"] = "f1",
) -> Interval:
    """The 95% interval of F1(a) - F1(b), or of another `figure`, on the same queries in the same order; -1 to 1.

    A paired bootstrap, as `ratio_interval`. Where both answer every query alike no resample differs, however few there
    are: the difference is then bounded by the share of queries that may differ unseen, the upper end of Wilson's interval
    of 0 in all. Raises InputError where the two are not of the same queries.
    """
    weight, (a, b), (drawn_a, drawn_b) = _paired(a_pairs, b_pairs, weights, seed)
    column = ("precision", "recall", "f1").index(figure)
    low, high = np.percentile(_prf(drawn_a)[:, column] - _prf(drawn_b)[:, column], [2.5, 97.5])
    point = float(_prf((a * weight[:, None]).sum(axis=0))[column] - _prf((b * weight[:, None]).sum(axis=0))[column])
    if low == high:
        unseen = wilson(0.0, float(weight.sum() ** 2 / (weight**2).sum()))[1]
        low, high = max(point - unseen, -1.0), min(point + unseen, 1.0)
    return min(float(low), point), max(float(high), point)


def _paired(
    a_pairs: Pairs, b_pairs: Pairs, weights: Sequence[float] | None, seed: int
) -> tuple[Floats, tuple[Floats, Floats], tuple[Floats, Floats]]:
    """The queries' weights, both sides' counts by query, and both sides' sums in each resample."""
    if [gold for _, gold in a_pairs] != [gold for _, gold in b_pairs]:
        raise InputError("a paired comparison wants the same queries in the same order on both sides; the gold differs")
    weight = _weights(a_pairs, weights)
    a, b = _counts(a_pairs).sum(axis=1), _counts(b_pairs).sum(axis=1)
    draws = _resampled(np.hstack([a, b]) * weight[:, None], seed)
    return weight, (a, b), (draws[:, :3], draws[:, 3:])


def _fields(pairs: Pairs) -> list[str]:
    return list(type(pairs[0][1]).model_fields)


def _counts(pairs: Pairs) -> Floats:
    """By query and field: pairs that are right, pairs answered, pairs in the gold."""
    place = {name: number for number, name in enumerate(_fields(pairs))}
    counts = np.zeros((len(pairs), len(place), 3))
    for rows, (answer, gold) in zip(counts, pairs, strict=True):
        found, wanted = answer.items() if answer else frozenset(), gold.items()
        for column, held in enumerate((found & wanted, found, wanted)):
            for field, _ in held:
                rows[place[field], column] += 1
    return counts


def _prf_score(found: Floats, drawn: Floats, effective: float) -> FieldScore:
    """From counts (right, answered, gold), and the same in each resample."""
    point, resampled = _prf(found), _prf(drawn)
    precision, recall, f1 = (float(value) for value in point)
    intervals = [_interval(resampled[:, column], float(point[column]), effective) for column in range(3)]
    return FieldScore(precision, intervals[0], recall, intervals[1], f1, intervals[2])


def _macro(counts: Floats) -> Floats:
    """The mean F1 of the fields (the last axis but one) that are answered or in the gold; 0 where none is."""
    there = counts[..., 1:].sum(axis=-1) > 0
    held = there.sum(axis=-1)
    sums: Floats = (_prf(counts)[..., 2] * there).sum(axis=-1)
    macro: Floats = np.divide(sums, held, out=np.zeros_like(sums), where=held > 0)
    return macro


def _prf(counts: Floats) -> Floats:
    """Precision, recall and F1 = 2·right / (answered + gold) from counts in the last axis; 0 for 0 / 0."""
    right, answered, gold = counts[..., 0], counts[..., 1], counts[..., 2]
    above = np.stack([right, right, 2 * right], axis=-1)
    below = np.stack([answered, gold, answered + gold], axis=-1)
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _resampled(counts: Floats, seed: int) -> Floats:
    """Column sums of RESAMPLES draws of the rows with replacement: one matrix product a draw, little memory."""
    rng, rows = np.random.default_rng(seed), len(counts)
    draws = (np.bincount(rng.integers(rows, size=rows), minlength=rows) for _ in range(RESAMPLES))
    return np.array([times @ counts for times in draws])


def _interval(resampled: Floats, point: float, effective: float) -> Interval:
    """The percentile interval, widened to the point where skew leaves it outside.

    Where every resample agrees (all right, or all wrong) the bootstrap knows no doubt, even of three queries:
    Wilson's interval with one trial a query (Kish's effective number, where weighted) then stands in.
    """
    low, high = np.percentile(resampled, [2.5, 97.5])
    if low == high:
        low, high = wilson(point * effective, effective)
    return min(float(low), point), max(float(high), point)


def _weights(pairs: Pairs, weights: Sequence[float] | None) -> Floats:
    if not pairs:
        raise InputError("no query to score: wanted at least one (answer, gold) pair; check the gold file's queries")
    weight = np.ones(len(pairs)) if weights is None else np.asarray(weights, dtype=float)
    if len(weight) != len(pairs) or not np.isfinite(weight).all() or weight.min() < 0 or weight.sum() == 0:
        raise InputError(
            f"weights: wanted {len(pairs)} finite numbers of at least 0, not all 0 (a query's traffic each), "
            f"got {len(weight)} that sum to {weight.sum():g}"
        )
    return weight


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value
