import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.sample import audit_sample, unasked
from labels.records import Label, Verdict


def label(number, status="accepted"):
    return Label(
        identity=f"id{number}", query=f"query {number}", status=status, value="{}", confidence={}, reason="", raw="",
        facts=(), task="t", task_version="1", model="m", prompt="p", night="n", tokens_in=1, tokens_out=1,
    )  # fmt: skip


def shop(head=20, torso=100, tail=500):
    labels = [label(number) for number in range(head + torso + tail)]
    bands = {
        item.query: "head" if place < head else "torso" if place < head + torso else "tail"
        for place, item in enumerate(labels)
    }
    return labels, bands


def identities(sampled):
    return {item.label.identity for item in sampled}


def test_equal_shares_and_the_small_stratum_gives_all_it_has():
    labels, bands = shop()
    sampled = audit_sample(labels, bands, 90, seed=1)
    assert Counter(item.stratum for item in sampled) == {"head": 20, "torso": 35, "tail": 35}
    chances = {item.stratum: item.inclusion_probability for item in sampled}
    assert chances == {"head": 1, "torso": 35 / 100, "tail": 35 / 500}


def test_reproducible_and_independent_of_order():
    labels, bands = shop()
    first = audit_sample(labels, bands, 60, seed=1)
    shuffled = random.Random(0).sample(labels, len(labels))
    assert audit_sample(shuffled, bands, 60, seed=1) == first
    assert identities(audit_sample(labels, bands, 60, seed=2)) != identities(first)


def test_one_more_label_changes_little():
    labels, bands = shop()
    before = identities(audit_sample(labels, bands, 60, seed=1))
    for number in range(1000, 1020):
        after = identities(audit_sample([*labels, label(number)], bands | {f"query {number}": "head"}, 60, seed=1))
        assert len(before - after) <= 2
        assert len(after - before) <= 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 100))
def test_size_is_met_and_chances_sum_to_it(head, torso, tail, size):
    labels, bands = shop(head, torso, tail)
    sampled = audit_sample(labels, bands, size, seed=1)
    assert len(sampled) == min(size, len(labels)) == len(identities(sampled))
    assert all(0 < item.inclusion_probability <= 1 for item in sampled)
    there = Counter(bands.values())
    chances = {item.stratum: item.inclusion_probability for item in sampled}
    assert sum(there[band] * chance for band, chance in chances.items()) == pytest.approx(len(sampled))
    stood_for = sum(1 / item.inclusion_probability for item in sampled)
    assert stood_for == pytest.approx(sum(there[band] for band in chances))


def test_each_label_of_a_stratum_is_drawn_as_often_as_said():
    labels, bands = shop(head=0, torso=0, tail=20)
    drawn = Counter(i for seed in range(600) for i in identities(audit_sample(labels, bands, 5, seed)))
    assert min(drawn.values()) > 600 / 4 - 4.5 * (600 * 3 / 16) ** 0.5
    assert max(drawn.values()) < 600 / 4 + 4.5 * (600 * 3 / 16) ** 0.5


def test_only_accepted_labels_are_asked_about():
    labels = [label(0), label(1, "rejected"), label(2, "failed")]
    sampled = audit_sample(labels, dict.fromkeys([item.query for item in labels], "tail"), 10, seed=1)
    assert identities(sampled) == {"id0"}


def test_nobody_is_asked_twice():
    labels, bands = shop()
    sampled = audit_sample(labels, bands, 9, seed=1)
    first = sampled[0].label
    said = Verdict(first.identity, first.query, "ann", "right", "{}", False, "head", 1.0)
    assert unasked(sampled, [said]) == sampled[1:]
    assert unasked(sampled, []) == sampled


def test_negative_size_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        audit_sample([], {}, -1, seed=1)
