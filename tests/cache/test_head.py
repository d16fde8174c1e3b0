import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.canonical import ALIAS, canonical
from cache.head import Limits, choose_head, coverage, with_aliases
from cache.layout import entry
from cache.memory import MIB, forecast_bytes
from labels.errors import SettingsError

QUERIES = [("milk", 50.0), ("bread", 30.0), ("tea", 10.0), ("oat milk", 10.0)]


def labels(*queries):
    return {query: entry({"product": query}, 0.9, "teacher") for query in queries}


def said(*queries):
    return {query: entry({"product": query}, 1.0, "person") for query in queries}


ALL = labels("milk", "bread", "tea", "oat milk")


def chosen(labelled, limits, people=None):
    return [query for query, _ in choose_head(QUERIES, labelled, people or {}, limits).entries]


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
    assert chosen(ALL, Limits(share)) == head


def test_a_query_without_a_label_is_passed_over_and_stays_uncovered():
    head = choose_head(QUERIES, labels("bread", "tea", "oat milk"), {}, Limits(0.4))
    assert [query for query, _ in head.entries] == ["bread", "oat milk"]
    assert head.traffic_share == coverage(QUERIES, ["bread", "oat milk"]) == 0.4
    assert head.cut == 3  # by its rank among all queries, as the plot of the traffic draws it


def test_the_first_limit_that_is_met_ends_the_head_and_is_named():
    two = forecast_bytes(labels("milk", "bread").items()) / MIB
    for limits, size, ended in (
        (Limits(0.5, entries=3, mib=two), 1, "share"),
        (Limits(0.9, entries=1, mib=two), 1, "entries"),
        (Limits(0.9, entries=3, mib=two), 2, "memory"),
        (Limits(1.0), 4, "labels"),
    ):
        head = choose_head(QUERIES, ALL, {}, limits)
        assert (len(head.entries), head.ended) == (size, ended)


def test_a_persons_answer_is_in_the_head_whatever_its_traffic_and_replaces_the_teachers():
    head = choose_head(QUERIES, ALL, said("tea", "gone from the log"), Limits(0.5))
    assert dict(head.entries) == labels("milk") | said("tea", "gone from the log")
    assert (head.people, head.traffic_share, head.ended) == (2, 0.6, "share")
    assert head.cut == 1  # a rare query that people answered is not where the head was cut


def test_people_come_before_the_teacher_where_there_is_little_room():
    assert chosen(ALL, Limits(1.0, entries=2), said("tea", "gone from the log")) == ["tea", "gone from the log"]
    assert chosen(ALL, Limits(1.0, entries=1), said("tea", "oat milk")) == ["oat milk"]


def test_no_traffic_is_no_head():
    head = choose_head([], ALL, {}, Limits(0.8))
    assert (head.entries, head.traffic_share, head.cut) == ([], 0.0, 0)
    assert coverage([], []) == 0.0


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(SettingsError, match="from 0 to 1, got 80"):
        choose_head(QUERIES, ALL, {}, Limits(80))


def test_of_two_queries_of_one_canonical_form_the_more_frequent_ones_answer_is_the_aliass():
    head = choose_head([("oat milk", 1.0), ("milk oats", 2.0)], labels("oat milk", "milk oats"), {}, Limits(1.0))
    full = with_aliases(head)
    assert full.aliases == [(ALIAS + canonical("oat milk"), labels("milk oats")["milk oats"])]
    assert full.lines == full.entries + full.aliases
    assert full.bytes > head.bytes


NAMES = [f"q{number}" for number in range(12)]


@given(
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9).map(float)),
    st.sets(st.sampled_from(NAMES)),
    st.sets(st.sampled_from(NAMES)),
    st.floats(0, 1),
    st.none() | st.integers(1, 9),
    st.none() | st.floats(0.0001, 0.002),
)
def test_whatever_the_log_a_head_keeps_its_limits_and_its_order(traffic, labelled, answered, share, most, mib):
    queries, ours, theirs = list(traffic.items()), labels(*labelled), said(*answered)
    head = choose_head(queries, ours, theirs, Limits(share, most, mib))
    held = dict(head.entries)
    assert len(held) == len(head.entries) <= (most or len(NAMES))
    assert mib is None or not held or head.bytes <= mib * MIB
    assert head.bytes == forecast_bytes(head.entries)
    assert head.traffic_share == coverage(queries, held)
    assert all(held[query] == (theirs.get(query) or ours[query]) for query in held)
    by_teacher = [query for query, _ in head.entries if query not in answered]
    assert not by_teacher or answered <= held.keys()
    rest = sorted((q for q in traffic if q in labelled - answered), key=lambda q: (-traffic[q], q))
    assert by_teacher == rest[: len(by_teacher)]
    if by_teacher:  # without the last of them the share was not reached yet
        assert sum(traffic.get(query, 0) for query in held.keys() - by_teacher[-1:]) < share * sum(traffic.values())
    if head.ended == "labels":
        assert held.keys() == answered | set(rest)
    ranks = [-traffic.get(query, 0) for query, _ in head.entries]
    assert ranks == sorted(ranks)
