import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from evals.item import Item, item_of
from evals.queue import ReviewQueue
from labels.errors import LeaseError
from labels.records import Example, Verdict
from labels.verdicts import Verdicts
from tests.labels.shop import label


def item(number, part="audit", **other):
    given = {"label": label(number, **other.pop("label", {})), "part": part, "band": "tail", "traffic": 1.0}
    return Item(**given | other)


@pytest.fixture
def queue(tmp_path):
    return ReviewQueue(Verdicts(tmp_path / "verdicts.sqlite"))


def say(queue, reviewer, decision="right", value="{}"):
    given = queue.take(reviewer)[0]
    return queue.submit(reviewer, given.lease, decision, value), given


def test_an_item_survives_json():
    shown = label(1, query="café <b>\N{GRINNING FACE}\u202e", examples=(Example("q", "{}", 0.5),), scores=(0.5,))
    one = Item(shown, "audit", "head", 3.0, "head · sure", 0.25, "why", True, "{}")
    assert item_of(one.to_json()) == one


def test_labels_are_given_in_the_queues_order_one_shown_and_one_ahead(queue):
    queue.fill([item(1), item(2), item(3)], "n1")
    first = queue.take("ann")
    assert [given.item.label.identity for given in first] == ["id1", "id2"]
    assert queue.take("ann") == first  # a reload shows the same
    queue.submit("ann", first[0].lease, "right", "{}")
    assert [given.item.label.identity for given in queue.take("ann")] == ["id2", "id3"]


def test_two_reviewers_never_hold_the_same_label(queue):
    queue.fill([item(n) for n in range(4)], "n1")
    held = [given.item.label.identity for who in ("ann", "bo") for given in queue.take(who)]
    assert sorted(held) == ["id0", "id1", "id2", "id3"]
    assert queue.take("cy") == []


def test_a_verdict_sent_twice_is_one_verdict(queue):
    queue.fill([item(1), item(2)], "n1")
    verdict, given = say(queue, "ann")
    assert queue.submit("ann", given.lease, "corrected", "other") == verdict
    assert queue.verdicts.all() == [verdict]
    assert queue.progress("ann").done == {"audit": 1}


def test_anothers_lease_is_refused_and_nothing_is_saved(queue):
    queue.fill([item(1)], "n1")
    [given] = queue.take("ann")
    with pytest.raises(LeaseError, match="not yours any more"):
        queue.submit("bo", given.lease, "right", "{}")
    with pytest.raises(LeaseError):
        queue.submit("bo", "forged", "right", "{}")
    assert queue.verdicts.all() == []


def test_a_lease_that_ended_goes_to_another_and_one_nobody_took_still_counts(tmp_path):
    queue = ReviewQueue(Verdicts(tmp_path / "v.sqlite"), lease_seconds=0.05)
    queue.fill([item(1), item(2)], "n1")
    [one, other] = queue.take("ann")
    time.sleep(0.1)
    [taken] = queue.take("bo", 1)
    assert taken.item.label.identity == "id1"
    with pytest.raises(LeaseError):
        queue.submit("ann", one.lease, "right", "{}")
    queue.submit("ann", other.lease, "right", "{}")
    assert [verdict.identity for verdict in queue.verdicts.all()] == ["id2"]


def test_what_is_taken_back_comes_again_first_with_the_earlier_answer(queue):
    queue.fill([item(n) for n in range(4)], "n1")
    verdict, _ = say(queue, "ann", "corrected", '{"a":1}')
    ahead = queue.take("ann")
    back = queue.undo("ann")
    assert (back.item.label.identity, back.before.value) == ("id0", '{"a":1}')
    assert queue.verdicts.all() == []
    assert [given.item.label.identity for given in queue.take("ann", 3)] == [
        "id0",
        *(a.item.label.identity for a in ahead),
    ]
    assert queue.take("ann")[0].before.value == '{"a":1}'
    again, _ = say(queue, "ann", "right")
    assert again.id != verdict.id
    assert [one.decision for one in queue.verdicts.all()] == ["right"]


def test_there_may_be_nothing_to_take_back(queue):
    assert queue.undo("ann") is None


def test_a_skipped_label_goes_to_others_and_comes_back_at_the_end(queue):
    queue.fill([item(1), item(2)], "n1")
    queue.skip("ann", queue.take("ann", 1)[0].lease)
    assert [given.item.label.identity for given in queue.take("ann", 1)] == ["id2"]
    assert [given.item.label.identity for given in queue.take("bo", 1)] == ["id1"]
    queue.leave("bo")
    say(queue, "ann")
    assert [given.item.label.identity for given in queue.take("ann", 1)] == ["id1"]


def test_an_overlap_label_goes_to_two_reviewers_and_where_they_differ_to_a_third(queue):
    queue.fill([item(1, overlap=True), item(2)], "n1")
    say(queue, "ann", value="{}")
    assert [given.item.label.identity for given in queue.take("ann")] == ["id2"]
    assert queue.take("bo")[0].item.label.identity == "id1"  # before anything new
    say(queue, "bo", "corrected", '{"x":1}')
    assert queue.progress("bo").wanted == {"audit": 4}
    assert queue.take("cy")[0].item.label.identity == "id1"
    say(queue, "cy", "corrected", '{"x":1}')
    assert [verdict.value for verdict in queue.verdicts.settled()] == ['{"x":1}']
    assert queue.take("di") == []  # id2 is with ann, and three have seen id1


def test_nobody_is_asked_again_about_a_label_that_a_later_night_samples_too(queue):
    queue.fill([item(1), item(2)], "n1")
    say(queue, "ann")
    queue.fill([item(2), item(1), item(3)], "n2")
    assert [given.item.label.identity for given in queue.take("ann", 3)] == ["id2", "id3"]
    assert queue.progress("ann").done == {"audit": 1}


def test_a_label_that_left_the_queue_can_still_be_answered_by_who_looks_at_it(queue):
    queue.fill([item(1)], "n1")
    [given] = queue.take("ann")
    queue.fill([item(2)], "n2")
    assert queue.submit("ann", given.lease, "right", "{}").identity == "id1"
    assert queue.recent("ann")[0][1] is True  # made anew since
    assert queue.progress("ann").done == {"audit": 0}


def test_simulated_verdicts_keep_nothing_from_people(queue):
    queue.fill([item(1)], "n1")
    queue.verdicts.add([Verdict("id1", "query 1", "simulated", "right", "{}", simulated=True)])
    queue.fill([item(1)], "n2")
    say(queue, "ann", "corrected", '{"x":1}')
    queue.verdicts.add([Verdict("id1", "query 1", "simulated", "right", "{}", simulated=True)])
    assert queue.verdicts.settled()[0].reviewer == "ann"


def test_twenty_reviewers_at_once_lose_no_verdict_and_share_none(queue):
    queue.fill([item(n, overlap=n % 5 == 0) for n in range(200)], "n1")
    said, errors = [], []

    def review(name):
        try:
            while given := queue.take(name, 2):
                said.append(queue.submit(name, given[0].lease, "right", "{}").id)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=review, args=(f"r{n}",)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    while given := queue.take("late", 1):  # what others held ahead when these had nothing left
        said.append(queue.submit("late", given[0].lease, "right", "{}").id)
    held = queue.verdicts.all()
    assert sorted(verdict.id for verdict in held) == sorted(said)
    seen = {}
    for verdict in held:
        seen.setdefault(verdict.identity, []).append(verdict.reviewer)
    assert {identity: len(set(who)) for identity, who in seen.items()} == {
        f"id{n}": 2 if n % 5 == 0 else 1 for n in range(200)
    }
    assert len(held) == 240


class Reviewing(RuleBasedStateMachine):
    """Three reviewers do anything in any order; what counts is kept beside the queue and compared."""

    who = st.sampled_from(["ann", "bo", "cy"])

    @initialize()
    def begin(self):
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.queue = ReviewQueue(Verdicts(Path(self.folder.name) / "v.sqlite"))
        self.queue.fill([item(n, overlap=n == 0) for n in range(4)], "n1")
        self.said = {}

    def teardown(self):
        self.folder.cleanup()

    @rule(who=who, value=st.sampled_from(["{}", '{"x":1}']))
    def answer(self, who, value):
        if given := self.queue.take(who):
            self.queue.submit(who, given[0].lease, "right", value)
            self.said[who, given[0].item.label.identity] = value

    @rule(who=who)
    def take_back(self, who):
        if back := self.queue.undo(who):
            del self.said[who, back.item.label.identity]

    @rule(who=who)
    def pass_over(self, who):
        if given := self.queue.take(who):
            self.queue.skip(who, given[0].lease)

    @rule(who=who)
    def go(self, who):
        self.queue.leave(who)

    @rule()
    def next_night(self):
        self.queue.fill([item(n, overlap=n == 0) for n in range(4)], "n2")

    @invariant()
    def what_was_said_is_what_is_held(self):
        held = {(verdict.reviewer, verdict.identity): verdict.value for verdict in self.queue.verdicts.all()}
        assert held == self.said

    @invariant()
    def progress_is_the_sum_over_labels(self):
        done = wanted = 0
        for n in range(4):
            values = [value for (_, identity), value in self.said.items() if identity == f"id{n}"]
            disputed = len(values) > 1 and max(map(values.count, values)) < 2
            asked = max(2 if n == 0 else 1, 3 if disputed else 1)
            wanted, done = wanted + asked, done + min(len(values), asked)
        progress = self.queue.progress("ann")
        assert (sum(progress.wanted.values()), sum(progress.done.values())) == (wanted, done)

    @precondition(lambda self: hasattr(self, "queue"))
    @invariant()
    def no_label_is_with_two_but_one_that_two_are_to_see(self):
        held = [
            row["identity"] for row in self.queue.verdicts.read("SELECT identity FROM leases WHERE identity <> 'id0'")
        ]
        assert len(held) == len(set(held))


Reviewing.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestReviewing = Reviewing.TestCase


def test_verdicts_given_elsewhere_count_in_the_queue(queue):
    queue.fill([item(1), item(2)], "n1")
    elsewhere = Verdict("id1", "query 1", "bo", "right", "{}")
    queue.add([elsewhere, Verdict("unknown", "query 9", "bo", "right", "{}")])
    queue.add([elsewhere])
    assert queue.progress("ann").done == {"audit": 1}
    assert [given.item.label.identity for given in queue.take("ann")] == ["id2"]


def test_undo_names_the_verdict_it_means_so_that_twice_takes_back_one(queue):
    queue.fill([item(1), item(2)], "n1")
    first, _ = say(queue, "ann")
    second, _ = say(queue, "ann")
    assert queue.undo("ann", first.id) is None
    assert queue.undo("ann", second.id).item.label.identity == "id2"
    assert queue.undo("ann", second.id) is None
    assert queue.verdicts.all() == [first]


def test_what_was_taken_back_is_not_called_saved_when_it_comes_again(queue):
    queue.fill([item(1)], "n1")
    verdict, given = say(queue, "ann")
    queue.undo("ann", verdict.id)
    with pytest.raises(LeaseError, match="you took this answer back"):
        queue.submit("ann", given.lease, "right", "{}")
    assert queue.verdicts.all() == []


def test_the_pace_of_all_is_known_without_naming_a_reviewer(queue):
    queue.fill([item(n) for n in range(4)], "n1")
    for who, seconds in (("ann", 2.0), ("bo", 4.0), ("bo", 6.0)):
        queue.submit(who, queue.take(who, 1)[0].lease, "right", "{}", seconds=seconds)
    assert queue.progress().seconds_each == 4.0
    assert queue.progress("ann").seconds_each == 2.0
