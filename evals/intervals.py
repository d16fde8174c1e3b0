"""95% intervals for shares: Wilson's for plain counts, and one for a stratified sample with unequal weights."""

from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
"""The 97.5% point of the normal distribution: a two-sided 95% interval."""
SHRINK = 2.0
"""How many verdicts' worth of the whole's variance each stratum's own is mixed with: see `ratio`."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A share (0 to 1), its 95% interval, the verdicts it rests on and how many plain draws those are worth."""

    share: float
    low: float
    high: float
    verdicts: int
    effective: float


class Design(NamedTuple):
    """How the verdicts were come by, one entry each: the stratum (0 up), the weight, and the chance of a verdict.

    Weights (above 0) add up to what each stratum is known to hold; a chance is above 0 and at most 1.
    """

    stratum: NDArray[np.int64]
    weight: Floats
    chance: Floats


def wilson(successes: float, trials: float, z: float = Z95) -> tuple[float, float]:
    """The score interval of a binomial share (Wilson 1927, JASA 22:209-212); (0, 1) with no trial.

    Unlike p ± z·sqrt(p(1-p)/n) it is never empty at 0 or 1 and holds its coverage on small counts. Fractional
    counts are allowed: an effective sample size is one.
    """
    if trials <= 0:
        return 0.0, 1.0
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return low, high


def ratio(above: Floats, below: Floats, design: Design) -> Estimate:
    """The share Σ w·above / Σ w·below of the whole, from a stratified sample; one entry a verdict in each argument.

    `above` and `below` are counts, 0 <= above <= below: 1 or 0 over 1 for "is it right", items found right over items
    found for precision. The variance is the ratio's, linearised within strata, whose totals the weights are calibrated
    to (Särndal, Swensson & Wretman, Model Assisted Survey Sampling, 1992, §5.5 and §7.7), and finite: what was bound
    to be seen (a chance π of 1) adds none. With e = above - p·below less its mean in the stratum, a = (w / Σ w·below)²
    (1 - π), and n_h the verdicts of stratum h that were not bound to be seen, it is the greater of

        Σ_h n_h / (n_h - 1) · Σ_i a_i e_i²   and   Σ_h s²_h · Σ_i a_i,   s²_h = (n_h·mean e² + SHRINK·s²) / (n_h + SHRINK)

    where mean e² is the stratum's, weighted, and s² the whole's. The first knows no doubt of a stratum whose few
    verdicts agree, nor of a heavy label whose like was not drawn; the second lends it some of the others' (as
    pseudo-counts do). Either alone covers too little for shares by traffic (tests/evals/test_coverage.py).

    The interval is Wilson's on the effective sample size p(1-p) / variance, which stays honest near 0 and 1 (Korn &
    Graubard 1998, Survey Methodology 24:193-201; Dean & Pagano 2015, J. Survey Stat. Methodol. 3:484-503). Where all
    agree, that size is Kish's (Survey Sampling, 1965, §11.7), 1 / Σ a·below². Where all was seen the share is certain.
    With nothing below the line the share is 0 and its interval (0, 1).
    """
    total = float(design.weight @ below)
    counted = int((below > 0).sum())
    if total <= 0:
        return Estimate(0.0, 0.0, 1.0, 0, 0.0)
    share = min(max(float(design.weight @ above) / total, 0.0), 1.0)
    unseen = (design.weight / total) ** 2 * (1 - design.chance)
    doubt = float(unseen @ below**2)
    if doubt <= 0:
        return Estimate(share, share, share, counted, float(counted))
    variance = _variance(above - share * below, design, unseen) if 0 < share < 1 else 0.0
    effective = share * (1 - share) / variance if variance > 0 else 1 / doubt
    return Estimate(share, *wilson(share * effective, effective), counted, effective)


def _variance(residual: Floats, design: Design, unseen: Floats) -> float:
    """The greater of the two variances of `ratio`: see there."""
    stratum, weight = design.stratum, design.weight

    def by_stratum(values: Floats) -> Floats:
        return np.bincount(stratum, weights=values).astype(float)

    held = np.maximum(by_stratum(weight), np.finfo(float).tiny)  # a number without verdicts holds nothing
    centred = residual - (by_stratum(weight * residual) / held)[stratum]
    verdicts = by_stratum((design.chance < 1).astype(float))
    linear = by_stratum(unseen * centred**2) * verdicts / np.maximum(verdicts - 1, 1)
    own = by_stratum(weight * centred**2) / held
    whole = float(weight @ residual**2) / float(weight.sum())
    mixed = (verdicts * own + SHRINK * whole) / (verdicts + SHRINK)
    return max(float(linear.sum()), float(mixed @ by_stratum(unseen)))
