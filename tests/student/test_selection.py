import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labels.semantic_roles import SemanticRoles
from student.selection import Selection, chance, least_sure, left_out, measuring, rows_of
from tests.labels.shop import label
from tests.student.rows import QUERIES, accepted, value


def fates(labels, answers=None, gold=(), traffic=None, seed=0, **selection):
    """By query why it does not train; None where it does."""
    chosen = Selection(**{"near": 1.0, "min_confidence": 0.0} | selection)
    rows = rows_of(labels, answers or {}, chosen.verified_weight, traffic or {}, {}, least_sure)
    measures = measuring([one.query for one in labels], gold)
    reasons = left_out(SemanticRoles, labels, rows, measures, chosen, seed)
    return {one.query: reason for one, reason in zip(labels, reasons, strict=True)}


def kept(labels, **how):
    return {query for query, reason in fates(labels, **how).items() if reason is None}


def test_only_labels_sure_enough_train_unless_people_answered_them():
    labels = [accepted("sure", 0.7), accepted("unsure", 0.69), accepted("verified", 0.1), label("n", query="no figure")]
    labels[3].confidence.clear()
    found = fates(labels, {"verified": value("right")}, min_confidence=0.7)
    assert found == {"sure": None, "unsure": "unsure", "verified": None, "no figure": None}


def test_each_label_left_out_has_the_first_reason_that_holds():
    labels = [
        accepted("gold itself"), accepted("golds itself"), accepted("oat milk"),
        accepted("unsure", 0.1), accepted("unsure gold", 0.1),
        label("r", query="rejected gold", status="rejected"), label("f", query="failed", status="failed", value=None),
    ]  # fmt: skip
    gold = ["gold itself", "Unsure  GOLD", "rejected gold"]  # in whatever form
    assert fates(labels, gold=gold, min_confidence=0.5) == {
        "gold itself": "held_out", "golds itself": "near_gold", "oat milk": None, "unsure": "unsure",
        "unsure gold": "held_out", "rejected gold": "rejected", "failed": "failed",
    }  # fmt: skip


def test_of_rows_that_say_the_same_the_verified_one_stays_and_then_the_one_asked_most():
    one, two, three = "whole fresh oat milk", "fresh whole oat milk", "oat milk fresh whole"
    labels = [accepted(query, answer="oat milk") for query in (one, two, three)]
    assert kept(labels, traffic={two: 2.0}, near=0.9) == {two}
    assert kept(labels, answers={three: value("oat milk")}, traffic={two: 2.0}, near=0.9) == {three}
    people = {query: value("oat milk") for query in (one, two)}
    assert kept(labels, answers=people, near=0.9) == {one, two}, "what people verified is always in"


def test_answers_are_the_same_in_normal_form():
    one, two = "whole fresh oat milk", "fresh whole oat milk"
    spelt = '{"product": "Oat  MILK", "brand": "", "attributes": []}'
    labels = [accepted(one, answer="oat milk"), label("s", query=two, value=spelt)]
    assert len(kept(labels, near=0.9)) == 1


def test_a_query_trains_once_by_its_surest_label():
    labels = [accepted("oat milk", 0.6, answer="milk"), accepted("oat milk", 0.8, answer="oat milk")]
    rows = rows_of(labels, {}, 1, {}, {}, least_sure)
    none = [None, None]
    assert left_out(SemanticRoles, labels, rows, none, Selection(near=1.0), 0) == ["collapsed", None]


@pytest.mark.parametrize("temper", [0.0, 0.5, 1.0])
def test_the_chance_of_being_drawn_is_traffic_to_the_power_of_temper(temper):
    traffic, draws = {"one": 1.0, "four": 4.0, "nine": 9.0}, 800
    labels = [accepted(query) for query in traffic]
    drawn = Counter(next(iter(kept(labels, traffic=traffic, rows=1, temper=temper, seed=n))) for n in range(draws))
    total = sum(events**temper for events in traffic.values())
    for query, events in traffic.items():
        share = events**temper / total
        assert abs(drawn[query] - draws * share) < 4 * (draws * share * (1 - share)) ** 0.5


@given(st.sets(st.sampled_from(QUERIES), min_size=2, max_size=40), st.integers(1, 40), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_query_more_moves_at_most_one_other_and_the_order_none(queries, rows, seed):
    labels = [accepted(query) for query in sorted(queries)]
    traffic = {query: 1.0 + len(query) ** 3 for query in queries}
    how = {"traffic": traffic, "rows": rows, "seed": seed}
    before, after = kept(labels[1:], **how), kept(labels, **how)
    assert len(after) == min(rows, len(labels))
    assert len(before - after) <= 1
    assert after - before <= {labels[0].query}
    assert kept(random.Random(seed).sample(labels, len(labels)), **how) == after


def test_verified_rows_are_in_whatever_the_draw_and_traffic_may_be_anything():
    labels = [accepted(query) for query in QUERIES]
    people = {query: value("right") for query in QUERIES[:20]}
    traffic = {query: (0.0, 1e-320, 1e300)[n % 3] for n, query in enumerate(QUERIES)}
    drawn = kept(labels, answers=people, traffic=traffic, rows=30, temper=1.0)
    assert set(people) < drawn
    assert len(drawn) == 30
    assert {traffic[query] for query in drawn - set(people)} == {1e300}
    assert kept(labels, answers=people, rows=5) == set(people)


def test_chances_are_uniform_and_never_0_or_1():
    found = [chance(0, str(n)) for n in range(2000)]
    assert 0 < min(found) < 0.01 < 0.99 < max(found) < 1
    assert abs(sum(found) / len(found) - 0.5) < 0.03
    assert chance(1, "0") != found[0]
