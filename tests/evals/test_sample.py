import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.judge import grouped, weigh
from evals.sample import BANDS, audit_sample, budget_size, confidence_of, draw, frame_of, sample_size
from labels.records import Label


def label(number, sure=None, status="accepted"):
    return Label(
        identity=f"id{number}", query=f"query {number}", status=status, value="{}",
        confidence={} if sure is None else {"product": sure, "brand": 1.0}, reason="", raw="",
        facts=(), task="t", task_version="1", model="m", prompt="p", night="n", tokens_in=1, tokens_out=1,
    )  # fmt: skip


def shop(head=20, torso=100, tail=500, seed=0):
    """Labels, and by query the traffic (Zipf's law) and the band."""
    drawn = random.Random(seed)
    labels = [label(number, drawn.betavariate(8, 1)) for number in range(head + torso + tail)]
    traffic = {one.query: 10_000 / (place + 1) for place, one in enumerate(labels)}
    bands = {
        one.query: "head" if place < head else "torso" if place < head + torso else "tail"
        for place, one in enumerate(labels)
    }
    return labels, traffic, bands


SIZES = st.integers(0, 60)


def identities(audit):
    return {one.label.identity for one in audit.sampled}


def chances(audit):
    return {one.label.identity: one.inclusion_probability for one in audit.sampled}


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, SIZES, st.integers(0, 200), st.integers(0, 2000))
def test_the_size_is_met_and_every_chance_is_one(head, torso, tail, size, day):
    labels, traffic, bands = shop(head, torso, tail)
    audit = audit_sample(labels, traffic, bands, size, seed=1, day=day)
    assert len(audit.sampled) == min(size, len(labels)) == len(identities(audit))
    assert all(0 < one.inclusion_probability <= 1 for one in audit.sampled)
    assert {one.stratum for one in audit.sampled} <= {stratum.name for stratum in audit.strata}


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES, SIZES)
def test_the_strata_hold_all_labels_and_all_traffic(head, torso, tail):
    labels, traffic, bands = shop(head, torso, tail)
    audit = audit_sample(labels, traffic, bands, 30, seed=1)
    assert sum(stratum.labels for stratum in audit.strata) == len(labels)
    assert sum(stratum.traffic for stratum in audit.strata) == pytest.approx(sum(traffic.values()))
    assert Counter(bands.values()) == {
        band: sum(stratum.labels for stratum in audit.strata if stratum.band == band) for band in set(bands.values())
    }
    sure = sorted(one for part in audit.confidence.values() for one in part)
    assert sure == sorted(confidence_of(one) for one in labels)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(1e-6, 1e9), st.floats(0, 1)), min_size=1), st.integers(0, 120))
def test_the_chances_of_a_stratum_sum_to_what_it_gives(rows, size):
    place = np.unique(sorted(stratum for stratum, _, _ in rows), return_inverse=True)[1]
    frame = frame_of(place, np.array([events for _, events, _ in rows]), np.array([sure for *_, sure in rows]), size)
    assert frame.given.sum() == min(size, len(rows))
    assert (frame.given <= np.bincount(place)).all()
    assert np.bincount(place, weights=frame.chance) == pytest.approx(frame.given)
    assert ((frame.chance >= 0) & (frame.chance <= 1)).all()
    drawn = draw(frame, np.random.default_rng(0).random(len(rows)))
    assert (np.bincount(place[drawn], minlength=len(frame.given)) == frame.given).all()


def test_every_stratum_gives_a_few_and_the_unsure_give_more():
    labels, traffic, bands = shop(120, 600, 6000)
    audit = audit_sample(labels, traffic, bands, 300, seed=1)
    given_by = Counter(one.stratum for one in audit.sampled)
    assert len(given_by) == len(audit.strata) == 9
    assert min(given_by.values()) >= 5
    for band in BANDS:
        assert given_by[f"{band}: least sure"] > given_by[f"{band}: surest"]
    assert min(sum(n for name, n in given_by.items() if name.startswith(band)) for band in BANDS) > 30


def test_busy_queries_have_the_greater_chance_and_the_busiest_are_certain():
    labels, traffic, bands = shop(60, 600, 6000)
    audit = audit_sample(labels, traffic, bands, 300, seed=1)
    assert chances(audit)["id0"] == 1
    torso = [one for one in audit.sampled if one.stratum == "torso: least sure"]
    a, b = max(torso, key=lambda one: one.traffic), min(torso, key=lambda one: one.traffic)
    sizes = [1 / len(labels) + one.traffic / sum(traffic.values()) for one in (a, b)]
    assert sizes[0] / sizes[1] > 1.5
    assert a.inclusion_probability / b.inclusion_probability == pytest.approx(sizes[0] / sizes[1])


def test_small_classes_of_confidence_join_and_bands_never_do():
    audit = audit_sample(*shop(10, 45, 600), 60, seed=1)
    by_band = Counter(stratum.band for stratum in audit.strata)
    assert by_band["head"] == 1
    assert by_band["torso"] <= 2
    assert by_band["tail"] == 3
    assert min(stratum.labels for stratum in audit.strata if stratum.band != "head") >= 20


def test_labels_without_confidence_are_a_class_of_their_own():
    labels, traffic, bands = shop(0, 0, 200)
    unsure = [label(number) for number in range(1000, 1100)]
    traffic |= {one.query: 1.0 for one in unsure}
    bands |= {one.query: "tail" for one in unsure}
    audit = audit_sample([*labels, *unsure], traffic, bands, 60, seed=1)
    found = {stratum.name: stratum.labels for stratum in audit.strata}
    assert found["tail: no confidence"] == 100
    assert audit.confidence["tail: no confidence"] == []
    alone = audit_sample(unsure, traffic, bands, 60, seed=1)
    assert [stratum.name for stratum in alone.strata] == ["tail: no confidence"]


def test_the_same_whatever_the_order_and_another_with_another_seed():
    labels, traffic, bands = shop()
    first = audit_sample(labels, traffic, bands, 60, seed=1, day=5)
    shuffled = random.Random(0).sample(labels, len(labels))
    assert audit_sample([*shuffled, *shuffled[:5]], traffic, bands, 60, seed=1, day=5) == first
    assert identities(audit_sample(labels, traffic, bands, 60, seed=2, day=5)) != identities(first)


@pytest.mark.parametrize("day", [0, 20_000])
def test_one_more_label_changes_little(day):
    labels, traffic, bands = shop(60, 600, 3000)
    before = identities(audit_sample(labels, traffic, bands, 200, seed=1, day=day))
    for number in range(5000, 5020):
        new = label(number, 0.9)
        after = audit_sample(
            [*labels, new], traffic | {new.query: 5.0}, bands | {new.query: "tail"}, 200, seed=1, day=day
        )
        assert len(before - identities(after)) <= 4
        assert len(identities(after) - before) <= 4


def test_each_label_is_drawn_as_often_as_said():
    labels, traffic, bands = shop(10, 40, 150)
    seeds = 1500
    drawn, said = Counter(), {}
    for seed in range(seeds):
        audit = audit_sample(labels, traffic, bands, 60, seed)
        drawn.update(identities(audit))
        said |= chances(audit)
    assert len(said) == 200
    chance = np.array(list(said.values()))
    often = np.array([drawn[identity] / seeds for identity in said])
    assert (often[chance == 1] == 1).all()
    z = (often - chance)[chance < 1] / np.sqrt(chance * (1 - chance) / seeds)[chance < 1]
    assert np.abs(z).max() < 4.5
    assert (z**2).mean() < 1.4  # 1 were the chances exact and the draws independent


def test_the_panel_turns_over_in_its_window_and_little_in_a_day():
    labels, traffic, bands = shop(60, 600, 3000)
    days = [audit_sample(labels, traffic, bands, 200, seed=1, day=day, window=14) for day in range(15)]
    kept = [len(identities(a) & identities(b)) / 200 for a, b in pairwise(days)]
    assert min(kept) > 0.8
    assert np.mean(kept) == pytest.approx(1 - 1 / 14, abs=0.03)
    seldom = {identity for identity, chance in chances(days[0]).items() if chance < 0.35}
    assert len(seldom) > 100
    assert not seldom & identities(days[-1])
    always = {identity for identity, chance in chances(days[0]).items() if chance == 1}
    assert always <= identities(days[-1])


def test_the_panel_goes_through_the_population():
    """Ten windows of a tenth each: chance alone would reach 65% of the labels."""
    labels = [label(number, 0.9) for number in range(500)]
    traffic, bands = ({one.query: what for one in labels} for what in (1.0, "tail"))
    seen = set()
    for day in range(0, 70, 7):
        seen |= identities(audit_sample(labels, traffic, bands, 50, seed=1, day=day, window=7))
    assert len(seen) > 0.8 * 500


def test_the_panel_outlives_a_change_of_size_however_late_the_day():
    labels, traffic, bands = shop(60, 600, 3000)
    before = identities(audit_sample(labels, traffic, bands, 200, seed=1, day=739_000))
    after = identities(audit_sample(labels[:-100], traffic, bands, 205, seed=1, day=739_000))
    assert len(before & after) > 0.85 * 200


def test_only_accepted_labels_are_asked_about():
    labels = [label(0), label(1, status="rejected"), label(2, status="failed")]
    audit = audit_sample(labels, {"query 0": 1.0}, {"query 0": "tail"}, 10, seed=1)
    assert identities(audit) == {"id0"}
    assert [stratum.labels for stratum in audit.strata] == [1]
    assert audit_sample(labels[1:], {}, {}, 10, seed=1).strata == []


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, st.integers(1, 60), st.integers(1, 100), st.data())
def test_whoever_responds_the_weights_add_up_to_the_population(head, torso, tail, size, data):
    labels, traffic, bands = shop(head, torso, tail)
    audit = audit_sample(labels, traffic, bands, size, seed=1)
    responding = data.draw(st.lists(st.booleans(), min_size=len(audit.sampled), max_size=len(audit.sampled)))
    if not any(responding):
        responding[0] = True
    decided = [one.stratum for one, does in zip(audit.sampled, responding, strict=True) if does]
    by_query, by_traffic = weigh(grouped(audit.strata, decided), audit.sampled, responding)
    assert by_query.weight.sum() == pytest.approx(len(labels))
    assert by_traffic.weight.sum() == pytest.approx(sum(traffic.values()))
    assert ((by_query.chance > 0) & (by_query.chance <= 1)).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        audit_sample([], {}, {}, -1, seed=1)
    with pytest.raises(ValueError, match="1 day or more"):
        audit_sample([], {}, {}, 1, seed=1, window=0)
    with pytest.raises(ValueError, match="traffic above 0"):
        audit_sample([label(0)], {"query 0": 0.0}, {"query 0": "tail"}, 1, seed=1)
    with pytest.raises(KeyError):
        audit_sample([label(0)], {"query 0": 1.0}, {}, 1, seed=1)


def test_sizes_by_width_and_by_time():
    assert sample_size(0.08) == 281  # 1.3 · 4 · 1.96² · 0.9 · 0.1 / 0.08²
    assert sample_size(0.04) == pytest.approx(4 * sample_size(0.08), rel=0.01)
    assert sample_size(0.08, 0.99) < sample_size(0.08, 0.5)
    assert budget_size(60, 12) == 300
    assert budget_size(0, 12) == 0
    for width, precision in ((0, 0.9), (0.1, 1.0)):
        with pytest.raises(ValueError, match="width above 0"):
            sample_size(width, precision)
    with pytest.raises(ValueError, match="seconds above 0"):
        budget_size(10, 0)
