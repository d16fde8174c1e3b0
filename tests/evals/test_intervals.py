import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from evals.intervals import stratified_precision, wilson


@pytest.mark.parametrize(("right", "trials"), [(0, 10), (1, 10), (15, 20), (81, 263), (10, 10), (999, 1000)])
def test_wilson_is_scipys(right, trials):
    wanted = binomtest(right, trials).proportion_ci(method="wilson")
    assert wilson(right, trials) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_wilson_known_value():
    low, high = wilson(81, 263)  # Newcombe 1998, Statistics in Medicine 17:857-872, table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_wilson_of_nothing_knows_nothing():
    assert wilson(0, 0) == (0, 1)


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_holds_the_share(trials, share):
    low, high = wilson(share * trials, trials)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1
    assert low < high


def test_equal_weights_in_one_stratum_are_wilson():
    estimate = stratified_precision([True] * 45 + [False] * 5, [4] * 50, ["tail"] * 50)
    assert estimate.share == pytest.approx(0.9)
    assert estimate.effective == pytest.approx(49)  # p(1-p) / v, with n - 1 in v
    assert (estimate.low, estimate.high) == pytest.approx(wilson(0.9 * 49, 49))


def test_weights_undo_unequal_chances():
    right = [True] * 10 + [False] * 10
    estimate = stratified_precision(right, [1] * 10 + [9] * 10, ["head"] * 10 + ["tail"] * 10)
    assert estimate.share == pytest.approx(0.1)
    assert estimate.low < 0.1 < estimate.high


def test_all_right_is_not_certain():
    estimate = stratified_precision([True] * 20, [1] * 10 + [9] * 10, ["head"] * 10 + ["tail"] * 10)
    assert estimate.share == 1
    assert estimate.effective == pytest.approx(100**2 / (10 + 81 * 10))
    assert 0.7 < estimate.low < wilson(20, 20)[0]
    assert estimate.high == 1


def test_one_verdict_says_little():
    estimate = stratified_precision([True], [3], ["head"])
    assert (estimate.low, estimate.high) == pytest.approx(wilson(1, 1))


@given(
    st.lists(st.tuples(st.booleans(), st.floats(1, 1000), st.sampled_from(["head", "tail"])), min_size=1, max_size=30)
)
def test_stratified_interval_holds_its_share(rows):
    estimate = stratified_precision([r for r, _, _ in rows], [w for _, w, _ in rows], [s for _, _, s in rows])
    assert 0 <= estimate.low <= estimate.share + 1e-9
    assert estimate.share - 1e-9 <= estimate.high <= 1
    assert estimate.low < estimate.high


@pytest.mark.parametrize(
    ("right", "weights", "strata"), [([], [], []), ([True], [0.0], ["head"]), ([True, False], [1.0], ["head", "tail"])]
)
def test_misfit_arguments_are_refused(right, weights, strata):
    with pytest.raises(ValueError, match="wanted one right"):
        stratified_precision(right, weights, strata)


@pytest.mark.parametrize(
    ("sizes", "shares", "taken"),
    [
        ((100, 900, 9000), (0.95, 0.92, 0.85), (50, 50, 50)),
        ((100, 900, 9000), (0.99, 0.97, 0.96), (30, 30, 30)),
        ((500, 500, 1000), (1.0, 0.9, 0.6), (40, 40, 40)),
        ((50, 300, 700), (0.98, 0.98, 0.98), (50, 100, 100)),
    ],
)
def test_stratified_interval_covers_the_truth_19_times_in_20(sizes, shares, taken):
    """Finite strata, drawn without replacement, as `audit_sample` draws them."""
    rng = np.random.default_rng(7)
    strata = [name for name, n in zip("abc", taken, strict=True) for _ in range(n)]
    weights = [size / n for size, n in zip(sizes, taken, strict=True) for _ in range(n)]
    right_there = [round(size * share) for size, share in zip(sizes, shares, strict=True)]
    truth = sum(right_there) / sum(sizes)
    draws, covered = 1000, 0
    for _ in range(draws):
        right: list[bool] = []
        for size, good, n in zip(sizes, right_there, taken, strict=True):
            found = rng.hypergeometric(good, size - good, n)
            right += [True] * found + [False] * (n - found)
        estimate = stratified_precision(right, weights, strata)
        covered += estimate.low <= truth <= estimate.high
    assert covered / draws >= 0.93
