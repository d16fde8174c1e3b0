import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.canonical import ALIAS, FalseHits, alias, aliases, canonical, measure, placed
from labels.normalise import normalise


@pytest.mark.parametrize(
    ("query", "like"),
    [
        ("oat milks", "milk oat"),
        ("tomatoes", "tomato"),
        ("nappies size 4", "size 4 nappy"),
        ("women's dress", "women dresses"),
    ],
)
def test_word_order_and_plural_do_not_matter(query, like):
    assert canonical(query) == canonical(like)


@pytest.mark.parametrize(("query", "other"), [("oat milk", "oat milk milk"), ("size 4", "size 5"), ("bus", "bu s")])
def test_other_words_are_another_form(query, other):
    assert canonical(query) != canonical(other)


@given(st.text())
def test_the_form_of_any_query_is_in_normal_form_and_no_alias_is_a_query(text):
    query = normalise(text)
    form = canonical(query)
    assert normalise(form) == form
    assert (form == "") == (query == "")
    assert normalise(alias(form)) != alias(form)
    assert "\n" not in alias(form)
    assert "\t" not in alias(form)
    assert placed(query) == placed(alias(form)) == form


def test_the_first_of_a_form_answers_for_it():
    assert aliases(["oat milk", "tea", "milk oats"]) == {canonical("oat milk"): "oat milk", canonical("tea"): "tea"}


def test_false_hits_are_counted_by_traffic_leaving_each_query_itself_out():
    traffic = [
        ("oat milk", 60.0),
        ("milk oat", 20.0),
        ("oat milks", 5.0),
        ("tea", 10.0),
        ("teas", 3.0),
        ("milks oat", 2.0),
    ]
    answers = {"oat milk": "a", "milk oat": "a", "oat milks": "b", "tea": "c", "teas": "c"}  # "milks oat" has no label
    found = measure(traffic, answers, ["oat milk", "milk oat", "tea"])
    weights = [60, 20, 5, 3]  # no other query of the head has the form of "tea" itself
    assert found == FalseHits(
        hits=4,
        wrong=1,
        share=pytest.approx(5 / 88),
        effective=pytest.approx(88**2 / sum(one * one for one in weights)),
        extra=pytest.approx(0.1),
    )


def test_with_nothing_to_hold_aliases_against_nothing_is_claimed():
    assert measure([("tea", 1.0)], {"tea": "c"}, ["tea"]) == FalseHits(0, 0, 0.0, 0.0, 0.0)
    assert ALIAS not in canonical("tea")
