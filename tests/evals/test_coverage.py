"""Do 95% intervals hold the truth 95% of the time? Simulated reviews of populations whose truth is known.

The populations are fixed; what varies is which labels the audit draws. Traffic follows Zipf's law, as query logs do;
whether a label is right depends on its confidence and its band.
"""

import json
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
from pydantic import Field

from evals.intervals import Design, ratio
from evals.judge import calibrated, judge
from evals.ppi import prediction_powered
from evals.sample import BANDS, audit_sample, draw, frame_of
from labels.records import Label, Verdict
from labels.task import Task

SIZE = 300
DRAWS = 2_000
CLASSES = 3


class Shop(NamedTuple):
    """A population in arrays, sorted by stratum."""

    stratum: np.ndarray
    traffic: np.ndarray
    band: np.ndarray
    sure: np.ndarray
    right: np.ndarray


def shop(labels, zipf, precision, spread, boast, seed):
    """`spread`: how much confidences differ; `boast`: by how much of the way to 1 they are too high."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, labels + 1) ** -zipf
    traffic = np.floor(200 * labels * share / share.sum()) + 1
    before = (np.cumsum(traffic) - traffic) / traffic.sum()
    band = np.where(before < 0.7, 0, np.where(before < 0.85, 1, 2))
    chance = rng.beta(precision / spread, (1 - precision) / spread, labels)
    chance = np.clip(chance + np.array([0.03, 0.0, -0.02])[band], 0, 1)
    right = (rng.random(labels) < chance).astype(float)
    sure = chance + boast * (1 - chance)
    stratum = CLASSES * band + np.searchsorted(np.quantile(sure, [1 / 3, 2 / 3]), sure, side="right")
    order = np.argsort(stratum, kind="stable")
    stratum = np.unique(stratum, return_inverse=True)[1]
    return Shop(*(column[order] for column in (stratum, traffic, band, sure, right)))


SHOPS = {
    "3,000 labels, 0.90 right": (3_000, 1.0, 0.90, 0.10, 0.0),
    "5,000 labels, 0.97 right": (5_000, 1.0, 0.97, 0.05, 0.0),
    "8,000 labels, 0.80 right": (8_000, 0.8, 0.80, 0.20, 0.0),
    "10,000 labels, 0.93 right, boastful": (10_000, 0.9, 0.93, 0.05, 0.5),
}


def covered(name, seed=0, draws=DRAWS):
    """Of the intervals by query, by traffic and by PPI: the shares that hold the truth, and the mean widths."""
    there = shop(*SHOPS[name], seed)
    frame = frame_of(there.stratum, there.traffic, there.sure, SIZE)
    population = [there.sure[there.stratum == at].tolist() for at in range(len(frame.given))]
    kinds = [
        (np.bincount(there.stratum, weights=x), x, float(x @ there.right / x.sum()))
        for x in (np.ones_like(there.traffic), there.traffic)
    ]
    rng = np.random.default_rng(seed)
    held, width = np.zeros(3), np.zeros(3)
    for _ in range(draws):
        drawn = draw(frame, rng.random(len(there.right)))
        stratum, chance, right = frame.stratum[drawn], frame.chance[drawn], there.right[drawn]
        designs = [Design(stratum, calibrated(x[drawn] / chance, stratum, totals), chance) for totals, x, _ in kinds]
        found = [ratio(right, np.ones_like(right), design) for design in designs]
        found.append(prediction_powered(found[0], right, there.sure[drawn], population, designs[0]) or found[0])
        truths = np.array([kinds[0][2], kinds[1][2], kinds[0][2]])
        low, high = (np.array([getattr(one, end) for one in found]) for end in ("low", "high"))
        held += (low <= truths) & (truths <= high)
        width += high - low
    return held / draws, width / draws


@pytest.mark.parametrize("name", SHOPS)
def test_intervals_hold_the_truth_19_times_in_20(name):
    held, width = covered(name)
    by_query, by_traffic, powered = held
    assert 0.935 <= by_query <= 0.965
    assert 0.935 <= by_traffic <= 0.965
    assert powered >= 0.935
    assert width[2] <= width[0]
