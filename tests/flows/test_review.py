import json
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from flows.review import calibrate, checked_labels, gold_items, held_audit, judge_teacher, queue_of, sample_labels
from tests.flows import night_by_hand
from tests.flows.night_by_hand import label, roles, said, verdict


@pytest.fixture
def begin(tmp_path):
    """A function: labels, verdicts, gold and settings, to a night that has got as far as its labels."""
    return partial(night_by_hand.begin, tmp_path)


def test_a_calibration_is_written_and_said_in_one_line(begin):
    gold = {f"query {number}": "milk" if number % 4 else "tea" for number in range(400)}
    night = begin([label(number) for number in range(400)], gold=gold)
    found = calibrate(night)
    assert (found.n, found.source, found.calibrated(0.9)) == (400, "gold", 0.75)
    assert json.loads((night.folder / "calibration.json").read_text()) == found.to_json()
    assert "confidence calibrated on 400 labels by gold: expected error 0.150 before, 0.0" in said(night)


def test_too_few_checked_labels_write_nothing_and_say_how_many_are_missing(begin):
    night = begin([label(number) for number in range(300)], [verdict(number) for number in range(150)])
    assert calibrate(night) is None
    assert not (night.folder / "calibration.json").exists()
    assert "not calibrated: 150 checked labels, 50 more are needed" in said(night)


def test_a_label_is_as_sure_as_its_least_sure_field_and_right_as_people_say(begin):
    verdicts = [verdict(1), verdict(2, "corrected"), verdict(3, "cant_tell")]
    found = checked_labels(begin([label(1, 0.8), label(2, 0.7), label(3, 0.6), label(4, 0.5)], verdicts))
    assert sorted(found.points) == [(0.7, False), (0.8, True)]
    assert (found.source, found.simulated) == ("verdicts", False)


def test_whichever_of_gold_and_people_knows_more_is_asked(begin):
    labels = [label(number) for number in range(5)]
    verdicts = [verdict(number, simulated=True) for number in range(4)]
    gold = {"query 0": "milk", "query 1": "tea", "unasked": "x"}
    found = checked_labels(begin(labels, verdicts, gold, review__simulated=True))
    assert (found.source, found.simulated, len(found.points)) == ("verdicts", True, 4)


def test_labels_without_a_confidence_or_not_accepted_say_nothing_of_it(begin):
    labels = [
        label(1),
        replace(label(2), confidence={}),
        label(3, status="rejected"),
        label(4, status="failed", value=None),
    ]
    found = checked_labels(begin(labels, gold={f"query {number}": "milk" for number in range(5)}))
    assert found.points == [(0.9, True)]


def test_a_night_that_nobody_checked_has_no_point(begin):
    assert checked_labels(begin([label(1)])).points == []


def test_the_sample_is_put_before_people_in_an_order_of_chance_and_read_back_whole(begin):
    night = begin([label(number) for number in range(400)], review__sample=60)
    audit = sample_labels(night)
    assert len(audit.sampled) == 60
    assert held_audit(night) == audit
    first = Counter(one.stratum for one in queue_of(night).items()[:20])
    assert first.keys() == {one.name for one in audit.strata}  # every stratum from the first verdicts on
    asked = queue_of(night).items()
    assert {one.label.identity for one in asked} == {one.label.identity for one in audit.sampled}
    assert [one.label.identity for one in asked] != sorted(one.label.identity for one in asked)
    assert not any(one.overlap for one in asked)  # there is one reviewer
    assert "60 labels sampled, 60 of them for people to review" in said(night)


def test_what_is_judged_is_not_asked_again_on_the_next_night(begin):
    labels = [label(number) for number in range(100)]
    night = begin(labels, review__sample=30)
    sample_labels(night)
    queue = queue_of(night)
    for _ in range(5):
        queue.submit("ann", queue.take("ann")[0].lease, "right", roles())
    queue.leave("ann")
    later = begin(labels, night="n2", review__sample=30)
    sample_labels(later)
    asked = {one.item.label.identity for one in queue_of(later).take("ann", 100)}
    assert asked
    assert not asked & {one.identity for one in later.warehouse.verdicts()}


def test_some_hidden_items_have_a_known_answer_and_are_no_part_of_the_audit(begin):
    gold = {f"query {number}": "milk" for number in range(50)}
    night = begin([label(number) for number in range(200)], gold=gold, review__sample=40, review__gold_share=0.1)
    audit = sample_labels(night)
    hidden = gold_items(night, audit)
    assert len(hidden) == round(0.1 * (40 + 60))
    assert all(one.answer == roles("milk") and one.part == "gold" for one in hidden)
    assert not {one.label.identity for one in hidden} & {one.label.identity for one in audit.sampled}
    assert len(queue_of(night).items()) == 50


def test_the_size_follows_from_a_width_or_from_minutes(begin):
    many = [label(number) for number in range(900)]
    assert len(sample_labels(begin(many, review__minutes=10.0)).sampled) == 50  # at 12 seconds each
    narrow = begin(many, night="n2", review__width=0.05, review__sample=1)
    assert 500 < len(sample_labels(narrow).sampled) < 850


def test_a_tenth_goes_to_two_where_there_are_two_reviewers(begin):
    sample_labels(night := begin([label(number) for number in range(400)], review__reviewers=["ann", "bo"]))
    assert 10 < sum(one.overlap for one in queue_of(night).items()) < 60


def test_a_label_made_anew_is_judged_by_what_people_said_of_its_query_and_not_asked_again(begin):
    night = begin([label(number) for number in range(100)], review__sample=40, review__active=0)
    audit = sample_labels(night)
    queue = queue_of(night)
    while given := queue.take("ann", 1):
        queue.submit("ann", given[0].lease, "right", given[0].item.label.value)
    anew = [
        label(number, identity=f"anew{number}", value=roles("tea" if number % 2 else "milk"), created="2099")
        for number in range(100)
    ]
    later = begin(anew, night="n2", review__sample=40, review__active=0)
    assert [one.label.query for one in sample_labels(later).sampled] == [one.label.query for one in audit.sampled]
    assert queue_of(later).items() == []
    found = judge_teacher(later, held_audit(later))
    assert (found.verdicts, found.unreviewed) == (40, 0)
    assert 0.3 < found.precision < 0.7


def test_hidden_items_that_were_judged_make_room_for_others(begin):
    gold = {f"query {number}": "milk" for number in range(100)}
    night = begin([label(number) for number in range(200)], gold=gold, review__sample=40, review__gold_share=0.1)
    first = {one.label.identity for one in gold_items(night, sample_labels(night))}
    night.warehouse.add_verdicts([verdict(identity.removeprefix("id"), "right", roles()) for identity in first])
    assert not first & {one.label.identity for one in gold_items(night, held_audit(night))}
