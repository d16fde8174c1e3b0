import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.intervals import Design, designed, ratio, wilson

ONE = np.array([1.0])


def share(right, weights, strata, chances=None):
    """The estimate of "is it right" from plain lists; seen with no chance worth the name unless said."""
    stratum = np.unique(strata, return_inverse=True)[1]
    chance = np.full(len(right), 1e-9) if chances is None else np.array(chances, dtype=float)
    y = np.array(right, dtype=float)
    return ratio(y, np.ones_like(y), design_of(stratum, np.array(weights, dtype=float), chance))


def design_of(stratum, weight, chance):
    return Design(stratum, weight, chance, np.bincount(stratum, weights=weight**2 * (1 - chance)))


@pytest.mark.parametrize(("right", "trials"), [(0, 10), (1, 10), (15, 20), (81, 263), (10, 10), (999, 1000)])
def test_wilson_is_scipys(right, trials):
    from scipy.stats import binomtest

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
    estimate = share([True] * 45 + [False] * 5, [4] * 50, ["tail"] * 50)
    assert estimate.share == pytest.approx(0.9)
    assert estimate.effective == pytest.approx(49)  # p(1-p) / v, with n - 1 in v
    assert (estimate.low, estimate.high) == pytest.approx(wilson(0.9 * 49, 49))


def test_weights_undo_unequal_chances():
    estimate = share([True] * 10 + [False] * 10, [1] * 10 + [9] * 10, ["head"] * 10 + ["tail"] * 10)
    assert estimate.share == pytest.approx(0.1)
    assert estimate.low < 0.1 < estimate.high


def test_all_right_is_not_certain():
    estimate = share([True] * 20, [1] * 10 + [9] * 10, ["head"] * 10 + ["tail"] * 10)
    assert estimate.share == 1
    assert estimate.effective == pytest.approx(100**2 / (10 + 81 * 10))
    assert 0.7 < estimate.low < wilson(20, 20)[0]
    assert estimate.high == 1


def test_one_verdict_says_little():
    estimate = share([True], [3], ["head"])
    assert (estimate.low, estimate.high) == pytest.approx(wilson(1, 1))


def test_strata_that_differ_say_more_than_one_mixed_of_them():
    right = [True] * 19 + [False] + [True] + [False] * 19
    apart = share(right, [5] * 40, ["head"] * 20 + ["tail"] * 20)
    assert apart.effective > 2 * share(right, [5] * 40, ["all"] * 40).effective


def test_a_stratum_whose_few_agree_is_still_doubted():
    right = [True, True] + [False] * 10 + [True] * 10
    estimate = share(right, [50] * 2 + [1] * 20, ["head"] * 2 + ["tail"] * 20)
    alone = 0.5 / 6 * (1 - 0.5 / 6) / ((1 / 120) ** 2 * 20 * 20 / 19 * 0.25)
    assert estimate.effective < alone / 10


def test_what_was_bound_to_be_seen_adds_no_doubt():
    right, weights = ([True] * 4 + [False]) * 4, [1] * 10 + [3] * 10
    strata = ["head"] * 10 + ["tail"] * 10
    half = share(right, weights, strata, [1] * 10 + [0.5] * 10)
    assert half.effective > share(right, weights, strata, [0.1] * 10 + [0.5] * 10).effective
    census = share(right, [1] * 20, strata, [1] * 20)
    assert (census.low, census.share, census.high) == (0.8, 0.8, 0.8)
    assert census.effective == 20


def test_a_share_of_nothing_is_nought_and_unknown():
    nothing = ratio(0 * ONE, 0 * ONE, design_of(np.array([0]), ONE, ONE / 2))
    assert (nothing.share, nothing.low, nothing.high, nothing.verdicts, nothing.effective) == (0, 0, 1, 0, 0)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(1, 1000), st.integers(0, 2), st.floats(0.01, 1)),
        min_size=1,
        max_size=30,
    )
)
def test_the_interval_holds_its_share(rows):
    above, more, weight, stratum, chance = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    estimate = ratio(above, above + more, design_of(stratum.astype(int), weight, chance))
    assert 0 <= estimate.low <= estimate.share + 1e-9
    assert estimate.share - 1e-9 <= estimate.high <= 1
    assert estimate.verdicts == ((above + more) > 0).sum()
    assert np.isfinite(estimate.effective)


def test_a_heavy_label_that_waits_for_its_verdict_is_doubted_by_its_weight():
    unit, chance = np.array([50.0] + [1.0] * 20), np.array([1.0] + [0.5] * 20)
    right = np.array([1.0] * 16 + [0.0] * 4)
    stratum, everyone, totals = np.zeros(21, dtype=int), np.ones(21, dtype=bool), np.array([90.0])
    judged = designed(stratum, unit, chance, everyone, totals)
    waits = designed(stratum, unit, chance, unit < 50, totals)
    assert judged.weight.sum() == pytest.approx(waits.weight.sum()) == pytest.approx(90)
    assert judged.doubt == pytest.approx([20 + 20])  # each weighs 2, 20 more were not drawn
    assert waits.doubt == pytest.approx([20 * 3.5**2 + 50**2 + 20])
    seen, unseen = ratio(np.array([1.0, *right]), np.ones(21), judged), ratio(right, np.ones(20), waits)
    assert unseen.high - unseen.low > 3 * (seen.high - seen.low)
