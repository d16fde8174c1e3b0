"""Precision, recall and F1 of answers against gold, with 95% intervals, weighted by traffic where asked.

The unit is the (field, value) pair of `Task.items()`, pooled over queries ("micro" averages). An answer of None
(failed, rejected, none at all) counts as no pair found: it lowers recall and is never left out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

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
    """Precision, recall and F1 of one field, 0 to 1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Score:
    """How well answers match gold: shares of 0 to 1 with their 95% intervals.

    `exact` is the share of queries answered wholly right, `invalid_rate` the share with no answer; like all figures
    but `queries` (a count) they are weighted by traffic where weights were given.
    """

    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval
    f1: float
    f1_interval: Interval
    exact: float
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
    counts = _counts(pairs) * weight[:, None]
    point = _prf(counts.sum(axis=0))
    resampled = _prf(_resampled(counts, seed))
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    low_high = [_interval(resampled[:, column], float(point[column]), effective) for column in range(3)]
    share = weight / weight.sum()
    return Score(
        precision=float(point[0]),
        precision_interval=low_high[0],
        recall=float(point[1]),
        recall_interval=low_high[1],
        f1=float(point[2]),
        f1_interval=low_high[2],
        exact=float(share @ [answer is not None and answer.items() == gold.items() for answer, gold in pairs]),
        invalid_rate=float(share @ [answer is None for answer, _ in pairs]),
        queries=len(pairs),
        by_field={name: _field_score(pairs, weight, name) for name in type(pairs[0][1]).model_fields},
    )


def ratio_interval(
    a_pairs: Pairs, b_pairs: Pairs, weights: Sequence[float] | None = None, seed: int = 0
) -> Interval | None:
    """The 95% interval of F1(a) / F1(b) on the same queries in the same order; None where F1(b) is 0.

    A paired bootstrap: each resample draws queries once and scores both on them (Efron & Tibshirani 1993, ch. 8).
    Resamples in which F1(b) is 0 are left out. Raises InputError where the two are not of the same queries.
    """
    if [gold for _, gold in a_pairs] != [gold for _, gold in b_pairs]:
        raise InputError("a paired comparison wants the same queries in the same order on both sides; the gold differs")
    weight = _weights(a_pairs, weights)
    counts = np.hstack([_counts(a_pairs), _counts(b_pairs)]) * weight[:, None]
    if _prf(counts.sum(axis=0)[3:])[2] == 0:
        return None
    draws = _resampled(counts, seed)
    f1_a, f1_b = _prf(draws[:, :3])[:, 2], _prf(draws[:, 3:])[:, 2]
    kept = f1_b > 0
    low, high = np.percentile(f1_a[kept] / f1_b[kept], [2.5, 97.5])
    return float(low), float(high)


def _counts(pairs: Pairs, field: str | None = None) -> Floats:
    """One row a query: pairs that are right, pairs answered, pairs in the gold (of one field, or of all)."""
    rows = np.zeros((len(pairs), 3))
    for row, (answer, gold) in zip(rows, pairs, strict=True):
        found = {pair for pair in (answer.items() if answer else ()) if field in (None, pair[0])}
        wanted = {pair for pair in gold.items() if field in (None, pair[0])}
        row[:] = len(found & wanted), len(found), len(wanted)
    return rows


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


def _field_score(pairs: Pairs, weight: Floats, field: str) -> FieldScore:
    precision, recall, f1 = _prf((_counts(pairs, field) * weight[:, None]).sum(axis=0))
    return FieldScore(float(precision), float(recall), float(f1))


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
