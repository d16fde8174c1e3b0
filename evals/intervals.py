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

NOTHING = 1e-12
"""A variance that rounding alone explains."""

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
    """How verdicts were come by: of each its stratum (0 up), its weight and its chance; of each stratum its doubt.

    Weights (above 0) add up to what each stratum is known to hold; a chance is above 0 and at most 1. The doubt is the
    variance of a stratum's estimated total, were what is judged of variance 1.
    """

    stratum: NDArray[np.int64]
    weight: Floats
    chance: Floats
    doubt: Floats


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


def designed(
    stratum: NDArray[np.int64], unit: Floats, chance: Floats, decided: NDArray[np.bool_], totals: Floats
) -> Design:
    """The design of the verdicts that decide, from the whole sample: one entry a label sampled in each argument.

    `unit` is what a label counts (1, or its traffic), `totals` what each stratum holds of it, `chance` its inclusion
    probability, `decided` whether a verdict decides it. A weight is unit / chance, calibrated to the stratum's total:
    so within it the decided ones stand for those that did not respond (weighting classes: Särndal, Swensson & Wretman
    1992, §15.6). A verdict's chance is the inclusion probability times the stratum's response rate.

    The doubt is that of predicting what was not seen (Royall 1970, Biometrika 57:377-387): (weight - unit)² of each
    decided label, unit² of each that did not respond, and of those not sampled what the sample says there is, unit²
    (1 - chance) / chance. A heavy label that waits for its verdict so counts with its own weight, not with another's.
    """

    def by_stratum(values: Floats, kept: NDArray[np.bool_] | slice = slice(None)) -> Floats:
        return np.bincount(stratum[kept], weights=values[kept], minlength=len(totals)).astype(float)

    least = np.finfo(float).tiny  # for strata without a verdict, which nothing is read of
    response = by_stratum(1 / chance, decided) / np.maximum(by_stratum(1 / chance), least)
    weight = unit / chance * (totals / np.maximum(by_stratum(unit / chance, decided), least))[stratum]
    doubt = by_stratum((weight - unit) ** 2, decided) + by_stratum(unit**2, ~decided)
    doubt += by_stratum(unit**2 * (1 - chance) / chance)
    return Design(stratum[decided], weight[decided], np.minimum(chance * response[stratum], 1.0)[decided], doubt)


def ratio(above: Floats, below: Floats, design: Design) -> Estimate:
    """The share Σ w·above / Σ w·below of the whole, from a stratified sample; one entry a verdict in each argument.

    `above` and `below` are counts, 0 <= above <= below: 1 or 0 over 1 for "is it right", items found right over items
    found for precision. The variance is the ratio's, linearised within strata, to whose totals the weights are
    calibrated (Särndal, Swensson & Wretman, Model Assisted Survey Sampling, 1992, §5.5 and §7.7), and finite: what
    was bound to be seen (a chance π of 1) adds none. With e = above - p·below less its weighted mean in the stratum,
    a = (w / Σ w·below)²·(1 - π), and n_h the verdicts of stratum h that were not bound to come, it is the greater of

        Σ_h n_h / (n_h - 1) · Σ_i a_i·e_i²   and   Σ_h doubt_h·s²_h / (Σ w·below)²

    where s²_h = (n_h·mean e² + SHRINK·s²) / (n_h + SHRINK) is the stratum's variance drawn towards the whole's, s². The
    first alone knows no doubt of a stratum whose few verdicts agree, nor of a heavy label whose like was not seen; the
    second alone none of heavy labels that differ from the others. (tests/evals/test_coverage.py measures both.)

    The interval is Wilson's on the effective sample size p(1-p) / variance, which stays honest near 0 and 1 (Korn &
    Graubard 1998, Survey Methodology 24:193-201; Dean & Pagano 2015, J. Survey Stat. Methodol. 3:484-503). Where all
    agree, that size is what the doubt alone gives, as Kish's (Survey Sampling, 1965, §11.7). Where all was seen the
    share is certain. With nothing below the line the share is 0 and its interval (0, 1).
    """
    total = float(design.weight @ below)
    counted = int((below > 0).sum())
    if total <= 0:
        return Estimate(0.0, 0.0, 1.0, 0, 0.0)
    share = min(max(float(design.weight @ above) / total, 0.0), 1.0)
    unsure = float(_means(below**2, design) @ design.doubt) / total**2
    if unsure <= NOTHING:
        return Estimate(share, share, share, counted, float(counted))
    variance = _variance(above - share * below, design) / total**2 if 0 < share < 1 else 0.0
    effective = share * (1 - share) / variance if variance > 0 else 1 / unsure
    return Estimate(share, *wilson(share * effective, effective), counted, effective)


def _variance(residual: Floats, design: Design) -> float:
    """The greater of the two variances of `ratio`, of the total: see there."""
    stratum, weight, chance, doubt = design
    centred = residual - _means(residual, design)[stratum]
    verdicts = np.bincount(stratum, weights=chance < 1, minlength=len(doubt))
    squares = np.bincount(stratum, weights=weight**2 * (1 - chance) * centred**2, minlength=len(doubt))
    whole = float(weight @ residual**2) / float(weight.sum())
    mixed = (verdicts * _means(centred**2, design) + SHRINK * whole) / (verdicts + SHRINK)
    there = np.bincount(stratum, minlength=len(doubt)) > 0
    return max(float((squares * verdicts / np.maximum(verdicts - 1, 1)).sum()), float(mixed[there] @ doubt[there]))


def _means(values: Floats, design: Design) -> Floats:
    """The weighted mean in each stratum; 0 where it has no verdict."""
    size = len(design.doubt)
    held = np.bincount(design.stratum, weights=design.weight, minlength=size)
    sums = np.bincount(design.stratum, weights=design.weight * values, minlength=size)
    return np.divide(sums, held, out=np.zeros(size), where=held > 0)
