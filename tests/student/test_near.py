import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from student.near import NEAR, collapsed, near_duplicates
from tests.student.rows import QUERIES, WORDS


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), st.randoms())
def test_the_same_words_in_any_order_are_near_duplicates(words, random):
    shuffled = random.sample(words, len(words))
    assert near_duplicates([" ".join(words)], ["something else", " ".join(shuffled)]) == [True]


def test_different_queries_are_not_near_and_no_gold_is_near_to_nothing():
    assert near_duplicates(["oat milk", "soy milk", "milk"], ["rye bread"]) == [False] * 3
    assert near_duplicates(["oat milk"], []) == [False]
    many = [f"{query} {place}" for place, query in enumerate(QUERIES * 8)]  # more than one block
    many.insert(1100, "rye bread")
    assert [place for place, near in enumerate(near_duplicates(many, ["bread rye"])) if near] == [1100]


queries = st.lists(st.text("abc ", min_size=1, max_size=24).filter(str.strip).map(lambda text: " ".join(text.split())))


@given(queries, queries)
@settings(max_examples=40)
def test_leaving_out_pairs_of_unlike_length_misses_none(ours, theirs):
    def near(one, other):
        closed_up = fuzz.ratio(one.replace(" ", ""), other.replace(" ", ""))
        return max(fuzz.token_sort_ratio(one, other), closed_up) >= NEAR

    assert near_duplicates(ours, theirs) == [any(near(one, other) for other in theirs) for one in ours]


def test_the_farthest_lengths_that_can_be_near_are_compared():
    assert near_duplicates(["abcdefghi"], ["abcdefghijk"]) == near_duplicates(["abcdefghijk"], ["abcdefghi"]) == [True]
    assert near_duplicates(["abcdefghi"], ["abcdefghijkl"]) == [False]


def test_what_says_the_same_twice_counts_once_and_the_better_stays():
    assert collapsed(["oat milk", "milk oat", "rye bread"], ["a", "a", "a"], 0.9) == [False, True, False]
    assert collapsed(["milk oat", "rye bread", "oat milk"], ["a", "a", "a"], 0.9) == [False, False, True]


def test_near_queries_with_different_answers_both_stay_and_at_1_all_do():
    assert collapsed(["oat milk", "milk oat"], ["a", "b"], 0.5) == [False, False]
    assert collapsed(["oat milk", "milk oat", "x"], ["a", "b", "a"], 0.5) == [False, False, False]
    assert collapsed(["oat milk", "milk oat"], ["a", "a"], 1.0) == [False, False]
    assert collapsed([], [], 0.5) == []


@pytest.mark.parametrize("near", [0.001, 0.5, 0.999])
def test_any_similarity_can_be_asked_for(near):
    assert collapsed(["oat milk", "milk oat", "rye bread"], ["a", "a", "a"], near) == [False, True, False]


def trigrams(query):
    return {f" {word} "[at : at + 3] for word in query.split() for at in range(len(word))}


def similarity(one, other):
    return len(trigrams(one) & trigrams(other)) / len(trigrams(one) | trigrams(other))


@given(
    st.lists(st.tuples(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), st.sampled_from("ab")), max_size=30),
    st.sampled_from([0.2, 0.5, 0.8]),
)
@settings(max_examples=25, deadline=None)
def test_each_dropped_query_has_a_kept_better_one_that_says_the_same(rows, near):
    texts, answers = [" ".join(words) for words, _ in rows], [answer for _, answer in rows]
    drop = collapsed(texts, answers, near)
    for at in (at for at, dropped in enumerate(drop) if dropped):
        better = [n for n in range(at) if not drop[n] and answers[n] == answers[at]]
        assert any(similarity(texts[n], texts[at]) >= near for n in better)


def test_few_pairs_are_missed():
    rng = random.Random(0)
    texts = []
    for query in (f"{one} {other}" for one in QUERIES[:20] for other in QUERIES[60:64]):
        at = rng.randrange(len(query))
        texts += [query, query[:at] + rng.choice("aeiou") + query[at:]]
    drop = collapsed(texts, ["same"] * len(texts), 0.8)
    kept: list[str] = []
    for text in texts:
        if not any(similarity(text, other) >= 0.8 for other in kept):
            kept.append(text)
    exact = len(texts) - len(kept)
    assert exact > 50
    assert 0.95 * exact <= sum(drop) <= exact * 1.02
