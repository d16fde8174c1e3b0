"""Calibration: what a label's confidence is worth, learnt from labels known to be right or wrong.

A label is as sure as its least sure field. Isotonic regression maps that to the chance that the label is right; the
expected calibration error says by how much confidences miss that chance, before and after.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evals.intervals import wilson

LEAST = 200
"""Checked labels a calibration takes at least."""
BINS = 10
FOLDS = 5

Source = Literal["gold", "verdicts"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Checked:
    """Labels somebody checked: (confidence 0 to 1, whether it is right) each; who says so, and whether by simulation."""

    points: Sequence[tuple[float, bool]]
    source: Source
    simulated: bool


@dataclass(frozen=True)
class Bin:
    """Labels of like confidence: how many, their mean confidence, the share that is right and its 95% interval."""

    labels: int
    confidence: float
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """A piecewise linear map from confidence to the chance of being right, through the points (x, y), 0 to 1.

    `ece_raw` and `ece_calibrated`: the expected calibration error before and after, the latter on labels the map did
    not see; `bins_raw` and `bins_calibrated`: the reliability diagrams they come from; `n`: the checked labels.
    """

    x: list[float]
    y: list[float]
    ece_raw: float
    ece_calibrated: float
    n: int
    source: Source
    simulated: bool
    bins_raw: list[Bin]
    bins_calibrated: list[Bin]

    def calibrated(self, confidence: float) -> float:
        """The chance, 0 to 1, that a label of this confidence is right; it never falls as the confidence grows."""
        return float(np.interp(confidence, self.x, self.y))

    def to_json(self) -> dict[str, Any]:
        """A dict `json.dumps` takes."""
        return asdict(self)


def fit_calibration(checked: Checked, seed: int = 0) -> Calibration | None:
    """The calibration these labels allow, each weighing alike; None where there are fewer than LEAST.

    Isotonic regression (Zadrozny & Elkan 2002, KDD) by scikit-learn. The map returned is fitted on all labels. Its
    error would flatter on the same ones, so it is taken by cross-fitting: each of FOLDS parts, drawn by `seed`, is
    calibrated by a map fitted on the others.
    """
    if len(checked.points) < LEAST:
        return None
    from sklearn.model_selection import KFold

    sure = np.array([confidence for confidence, _ in checked.points], dtype=float)
    right = np.array([is_right for _, is_right in checked.points], dtype=float)
    unseen = np.empty_like(sure)
    for fitted, held_out in KFold(FOLDS, shuffle=True, random_state=seed).split(sure):
        unseen[held_out] = np.interp(sure[held_out], *_isotonic(sure[fitted], right[fitted]))
    x, y = _isotonic(sure, right)
    raw, calibrated = reliability_bins(sure, right), reliability_bins(unseen, right)
    return Calibration(
        x=x.tolist(),
        y=y.tolist(),
        ece_raw=expected_calibration_error(raw),
        ece_calibrated=expected_calibration_error(calibrated),
        n=len(sure),
        source=checked.source,
        simulated=checked.simulated,
        bins_raw=raw,
        bins_calibrated=calibrated,
    )


def reliability_bins(confidence: Floats, right: Floats) -> list[Bin]:
    """The reliability diagram of labels: BINS bins of equal width over 0 to 1, empty ones left out; Wilson intervals.

    (DeGroot & Fienberg 1983, The Statistician 32:12-22.) `right` is 1 or 0 for each confidence.
    """
    place, bins = bin_of(confidence), []
    for number in np.unique(place):
        inside = place == number
        low, high = wilson(float(right[inside].sum()), int(inside.sum()))
        share, mean = float(right[inside].mean()), float(confidence[inside].mean())
        bins.append(Bin(int(inside.sum()), mean, share, low, high))
    return bins


def bin_of(confidence: Floats) -> NDArray[np.int_]:
    """In which of the BINS bins each confidence falls, from 0 up; 1 falls in the last."""
    return np.clip((confidence * BINS).astype(int), 0, BINS - 1)


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean distance, over labels, of a bin's confidence to the share that is right; 0 to 1, nan without labels.

    ECE with bins of equal width (Guo et al. 2017, "On Calibration of Modern Neural Networks", ICML, eq. 3).
    """
    labels = sum(one.labels for one in bins)
    return sum(one.labels * abs(one.right - one.confidence) for one in bins) / labels if labels else float("nan")


def _isotonic(confidence: Floats, right: Floats) -> tuple[Floats, Floats]:
    """The points of the rising line nearest to the labels by squared error."""
    from sklearn.isotonic import IsotonicRegression

    line = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, right)
    return line.X_thresholds_, line.y_thresholds_
