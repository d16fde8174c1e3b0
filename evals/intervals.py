"""95% intervals for shares: Wilson's for plain counts, and one for a stratified sample with unequal weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

Z95 = 1.959963984540054
"""The 97.5% point of the normal distribution: a two-sided 95% interval."""


@dataclass(frozen=True)
class Estimate:
    """A share (0 to 1), its 95% interval, the verdicts it rests on and how many plain draws those are worth."""

    share: float
    low: float
    high: float
    verdicts: int
    effective: float


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


def stratified_precision(right: Sequence[bool], weights: Sequence[float], strata: Sequence[str]) -> Estimate:
    """The share of the whole that is right, from a stratified sample; one entry a verdict in each argument.

    `weights` are 1 / inclusion probability to weigh every label alike, traffic / inclusion probability to weigh
    labels by traffic. The estimate is Hájek's ratio p = Σ w·y / Σ w (Särndal, Swensson & Wretman, Model Assisted
    Survey Sampling, 1992, §5.7); its variance is linearised and taken within strata (ibid., §5.5):

        v = Σ_h n_h / (n_h - 1) · Σ_i (u_hi - mean u_h)²,   u_i = w_i · (y_i - p) / Σ w

    The interval is Wilson's on an effective sample size, which stays honest near 0 and 1 (Korn & Graubard 1998,
    Survey Methodology 24:193-201; Dean & Pagano 2015, J. Survey Stat. Methodol. 3:484-503). That size is the
    smaller of p(1-p) / v and Kish's (Σ w)² / Σ w² (Survey Sampling, 1965, §11.7): v alone knows no doubt of a
    stratum whose few verdicts agree. No finite-population correction, so it is a little wide when most labels were
    seen. Raises ValueError where the arguments are empty, differ in length, or a weight is not above 0.
    """
    if not len(right) == len(weights) == len(strata) > 0 or min(weights) <= 0:
        raise ValueError(
            f"wanted one right, one weight above 0 and one stratum for each of at least one verdict, got {len(right)}, "
            f"{len(weights)} and {len(strata)}, the least weight {min(weights, default=0)}"
        )
    y, w = np.asarray(right, dtype=float), np.asarray(weights, dtype=float)
    share = float(w @ y / w.sum())
    effective = float(w.sum() ** 2 / (w @ w))
    residual = w * (y - share) / w.sum()
    variance = 0.0
    for stratum in set(strata):
        u = residual[np.asarray(strata) == stratum]
        variance += float(len(u) * u.var(ddof=1)) if len(u) > 1 else 0.0
    if variance > 0:
        effective = min(effective, share * (1 - share) / variance)
    share = min(max(share, 0.0), 1.0)
    low, high = wilson(share * effective, effective)
    return Estimate(share, low, high, len(right), effective)
