import itertools
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.calibration import (
    LEAST,
    Bin,
    Checked,
    expected_calibration_error,
    fit_calibration,
    reliability_bins,
)

SHARE = st.floats(0, 1)
POINTS = st.lists(st.tuples(SHARE, st.booleans()), min_size=LEAST, max_size=LEAST + 50)


def checked(points):
    return Checked(points, "gold", simulated=False)


def overconfident(number, seed=0):
    """Labels right with a chance of half their confidence."""
    drawn = random.Random(seed)
    sure = [drawn.random() for _ in range(number)]
    return [(confidence, drawn.random() < confidence / 2) for confidence in sure]


def test_fewer_than_two_hundred_checked_labels_give_no_calibration():
    assert fit_calibration(checked(overconfident(LEAST - 1))) is None
    assert fit_calibration(checked(overconfident(LEAST))).n == LEAST == 200


def test_an_overconfident_teacher_is_set_right():
    found = fit_calibration(checked(overconfident(5000)))
    assert found.ece_raw == pytest.approx(0.25, abs=0.02)  # the mean of confidence / 2
    assert found.ece_calibrated < 0.04
    assert found.calibrated(0.8) == pytest.approx(0.4, abs=0.08)


def test_the_calibrated_error_is_of_labels_the_map_did_not_see():
    drawn = random.Random(1)
    noise = [(drawn.random(), drawn.random() < 0.5) for _ in range(LEAST)]
    found = fit_calibration(checked(noise))
    sure, right = np.array([c for c, _ in noise]), np.array([float(r) for _, r in noise])
    seen = expected_calibration_error(reliability_bins(np.interp(sure, found.x, found.y), right))
    assert found.ece_calibrated > seen + 0.01  # on what it was fitted to, isotonic regression flatters itself


def test_the_same_seed_gives_the_same_figures():
    points = overconfident(300)
    assert fit_calibration(checked(points), 1) == fit_calibration(checked(points), 1)
    assert fit_calibration(checked(points), 1).ece_calibrated != fit_calibration(checked(points), 2).ece_calibrated


@settings(deadline=None, max_examples=50)
@given(POINTS, st.lists(SHARE, min_size=2, max_size=20))
def test_what_is_surer_is_never_calibrated_lower_and_all_stays_a_chance(points, asked):
    found = fit_calibration(checked(points))
    calibrated = [found.calibrated(confidence) for confidence in sorted(asked)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(calibrated))
    assert all(0 <= chance <= 1 for chance in [*calibrated, found.ece_raw, found.ece_calibrated])


@pytest.mark.parametrize("right", [True, False])
def test_labels_all_alike_are_calibrated_to_what_they_are(right):
    found = fit_calibration(checked([(0.9, right)] * 200))
    assert found.calibrated(0.1) == found.calibrated(0.9) == float(right)
    assert (found.ece_raw, found.ece_calibrated) == (pytest.approx(0.1 if right else 0.9), 0)


def test_bins_hold_every_label_once_with_its_interval():
    bins = reliability_bins(np.array([0.0, 0.05, 0.55, 1.0]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert [(one.labels, one.confidence, one.right) for one in bins] == [(2, 0.025, 0.5), (1, 0.55, 1), (1, 1, 1)]
    assert all(one.low <= one.right <= one.high for one in bins)


def test_the_expected_calibration_error_is_guos():
    bins = [Bin(3, 0.9, 0.6, 0, 1), Bin(1, 0.2, 0.3, 0, 1)]
    assert expected_calibration_error(bins) == pytest.approx(3 / 4 * 0.3 + 1 / 4 * 0.1)
    assert math.isnan(expected_calibration_error([]))


def test_it_is_json_with_the_map_the_errors_and_who_said_so():
    found = fit_calibration(Checked(overconfident(LEAST), "verdicts", simulated=True))
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (read["n"], read["source"], read["simulated"]) == (LEAST, "verdicts", True)
    assert (read["x"], read["y"], read["ece_raw"]) == (found.x, found.y, found.ece_raw)
    assert sum(one["labels"] for one in read["bins_raw"]) == LEAST
    assert sum(one["labels"] for one in read["bins_calibrated"]) == LEAST
