import pytest

from cache.head import Coverage, choose_head, coverage
from labels.errors import SettingsError

QUERIES = [("milk", 50.0), ("bread", 30.0), ("tea", 10.0), ("oat milk", 10.0)]
ALL = {query for query, _ in QUERIES}


@pytest.mark.parametrize(
    ("share", "head"),
    [
        (0.0, []),
        (0.5, ["milk"]),
        (0.51, ["milk", "bread"]),
        (0.9, ["milk", "bread", "oat milk"]),
        (1.0, ["milk", "bread", "oat milk", "tea"]),
    ],
)
def test_head_is_the_most_frequent_queries_until_the_share_is_covered(share, head):
    assert choose_head(QUERIES, ALL, share) == head


def test_a_query_without_a_label_is_passed_over_and_stays_uncovered():
    head = choose_head(QUERIES, ALL - {"milk"}, 0.4)
    assert head == ["bread", "oat milk"]
    assert coverage(QUERIES, head) == Coverage(2, 0.4)


def test_a_share_that_cannot_be_reached_gives_all_that_is_labelled():
    head = choose_head(QUERIES, {"tea"}, 0.8)
    assert head == ["tea"]
    assert coverage(QUERIES, head).traffic_share == pytest.approx(0.1)


def test_no_traffic_is_no_head():
    assert choose_head([], ALL, 0.8) == []
    assert coverage([], []) == Coverage(0, 0.0)


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(SettingsError, match="from 0 to 1, got 80"):
        choose_head(QUERIES, ALL, 80)
