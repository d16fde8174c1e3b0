from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labels.embed import NgramEmbedder
from labels.records import Verdict
from teacher.examples import ExampleFinder

NGRAMS = NgramEmbedder()
MILK = '{"product":"milk"}'


def verdict(query, decision="right", value=MILK, created="2026-01-01"):
    value = None if decision == "cant_tell" else value
    return Verdict("id", query, "ann", decision, value, created=created)


def finder(verdicts, held_out=(), least=0.0):
    return ExampleFinder(verdicts, held_out, NGRAMS, least)


def queries(found):
    return [example.query for example in found]


def test_the_nearest_verified_queries_come_first_with_what_people_said():
    found = finder(
        [
            verdict("oat milk"),
            verdict("whole milk 1 l", "corrected", '{"product":"whole milk"}'),
            verdict("garden hose"),
        ]
    ).find(["oat mlik", "whole milk"], 2)
    assert queries(found[0])[0] == "oat milk"
    assert (found[1][0].query, found[1][0].value) == ("whole milk 1 l", '{"product":"whole milk"}')
    assert all(one.score >= other.score for row in found for one, other in pairwise(row))


def test_a_query_is_never_its_own_example():
    there = finder([verdict("oat milk"), verdict("oat milk 1 l")])
    assert queries(there.find(["oat milk"], 5)[0]) == ["oat milk 1 l"]
    assert finder([verdict("oat milk")]).find(["oat milk"], 3) == [[]]


def test_gold_is_never_an_example():
    verdicts = [verdict("oat milk"), verdict("oat milk 1 l"), verdict("oat drink")]
    there = finder(verdicts, held_out={"oat milk", "oat drink"})
    assert len(there) == 1
    assert queries(there.find(["oat milk 2 l"], 5)[0]) == ["oat milk 1 l"]


def test_the_latest_verdict_of_a_query_counts_and_none_where_they_could_not_tell():
    older, later = verdict("oat milk", created="2026-01-01"), verdict("oat milk", "corrected", '{"a":1}', "2026-02-01")
    for order in ([older, later], [later, older]):
        assert [one.value for one in finder(order).find(["oat milks"], 1)[0]] == ['{"a":1}']
    assert len(finder([later, verdict("oat milk", "cant_tell", created="2026-03-01")])) == 0
    assert finder([verdict("tea", "cant_tell")]).find(["tea leaves"], 3) == [[]]


def test_what_is_not_like_the_query_is_no_example():
    there = finder([verdict("oat milk"), verdict("garden hose")], least=0.5)
    assert queries(there.find(["oat milks"], 5)[0]) == ["oat milk"]
    assert there.find(["zzz", "\N{GRINNING FACE}"], 5) == [[], []]


def test_no_verdicts_none_wanted_and_no_queries():
    assert finder([]).find(["milk"], 3) == [[]]
    assert finder([verdict("tea")]).find(["milk", "teas"], 0) == [[], []]
    assert finder([verdict("tea")]).find([], 3) == []


class Same:
    """An embedder to which all texts are alike."""

    name, dimensions = "same", 8

    def embed(self, texts):
        return np.full((len(texts), 8), 8**-0.5, np.float32)


@given(st.permutations([f"query {number}" for number in range(12)]))
def test_of_equally_near_examples_the_first_by_text_are_shown_whatever_order_they_came_in(order):
    there = ExampleFinder([verdict(query) for query in order], (), Same(), 0.5)
    assert queries(there.find(["query 10"], 3)[0]) == ["query 0", "query 1", "query 11"]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["oat milk", "oat drink", "soy milk", "milk", "tea"])),
    st.sets(st.sampled_from(["milk", "tea"])),
)
def test_neither_the_query_nor_gold_nor_more_than_asked_for_is_ever_shown(verified, gold):
    there = finder([verdict(query) for query in verified], held_out=gold)
    for query, found in zip(["milk", "oat milk"], there.find(["milk", "oat milk"], 2), strict=True):
        assert not {query, *gold} & set(queries(found))
        assert len(found) == min(2, len(set(verified) - gold - {query}))


def test_a_score_is_a_cosine():
    found = finder([verdict("oat milk 1 l"), verdict("zzz")]).find(["1 l oat milk"], 2)[0]  # the same n-grams
    assert [one.score for one in found] == pytest.approx([1, 0], abs=1e-6)
