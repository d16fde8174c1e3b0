"""Prediction-powered inference: the confidence of all labels, judged or not, sharpens what the verdicts say."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evals.intervals import Design, Estimate, wilson

Floats = NDArray[np.float64]


def prediction_powered(
    whole: Estimate, right: Floats, sure: Floats, population: Sequence[Floats], design: Design
) -> Estimate | None:
    """The share that is right, `whole`, corrected by the confidence; None where that tells nothing.

    `right` is 1 or 0 and `sure` the confidence (0 to 1, nan where unknown) of each verdict's label; `population` holds,
    by stratum, the confidences of all labels. By ppi-python: prediction-powered inference (Angelopoulos et al. 2023,
    Science 382:669-674) with its tuning parameter (PPI++: Angelopoulos, Duchi & Zrnic 2023, arXiv:2311.01453), within
    strata (Fisch et al. 2024, arXiv:2406.04291): verdicts and confidences go in less their stratum's mean, so that
    only what the strata do not explain already counts.

    The library's interval is the normal one of independent draws. Only how much narrower than without predictions it is
    counts here: `whole`'s effective size grows by the square of that, and the interval is Wilson's again.
    """
    known = ~np.isnan(sure)
    means = np.array([part.mean() if len(part) else 0.0 for part in population])
    everyone = np.concatenate([part - mean for part, mean in zip(population, means, strict=True)])
    predicted = np.where(known, sure - means[design.stratum], 0.0)
    if not 0 < whole.share < 1 or not (predicted.any() and everyone.any()):
        return None
    weight = design.weight
    held = np.bincount(design.stratum, weights=weight)
    shares = np.bincount(design.stratum, weights=weight * right) / np.maximum(held, np.finfo(float).tiny)
    centred = right - shares[design.stratum]
    with warnings.catch_warnings():  # importing it silences every warning of the process
        from ppi_py import ppi_mean_ci
    plain, powered = (
        [float(np.squeeze(end)) for end in ppi_mean_ci(centred, predicted, everyone, alpha=0.05, lam=lam, w=weight)]
        for lam in (0.0, None)
    )
    width = powered[1] - powered[0]
    narrower = (plain[1] - plain[0]) / width if width > 0 else 1.0
    share = min(max(whole.share + (powered[0] + powered[1]) / 2, 0.0), 1.0)
    effective = whole.effective * narrower**2
    return Estimate(share, *wilson(share * effective, effective), whole.verdicts, effective)
