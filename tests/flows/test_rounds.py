"""Rounds and second steps as the night runs them; the trainers themselves are tested in tests/student."""

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.people import held_out
from flows.rounds import (
    DEV,
    Trained,
    askable,
    calibrated,
    dev_split,
    extra_pairs,
    extra_rows,
    run_rounds,
    student_calibration,
    train_in_rounds,
)
from flows.second_steps import after_training, pretrained, pretraining_texts
from labels.files import read_manifest, write_json
from labels.semantic_roles import SemanticRoles
from labels.split import split_of
from student.extras import Extras
from student.near import near_duplicates
from student.rows import Row
from student.sampling import Best
from tests.flows.night_by_hand import begin, label, roles, said, verdict
from tests.student.training import recipe

WORDS = [f"{a}{b}" for a in ("quin", "zork", "plov", "mux", "brid") for b in ("tal", "dop", "ger", "wisk", "lum")]
QUERIES = [f"{one} {other}" for one in WORDS for other in WORDS if one < other]
MORE = {"student__rounds__most": 2}


def labels_of(queries=QUERIES, **other):
    return [label(place, query=query, value=roles(query), **other) for place, query in enumerate(queries)]


# The loop.


class Play:
    """Trainings with the given dev F1; each student's samples add one row, until `dry`."""

    def __init__(self, *f1, dry=99):
        self.f1, self.dry, self.trained, self.sampled = f1, dry, [], []

    def train(self, extras):
        self.trained.append(extras)
        return Trained(Path(f"student-{len(self.trained)}"), 100 + len(extras.rows), len(extras.pairs))

    def measure(self, student):
        return SimpleNamespace(f1=self.f1[int(student.name[-1]) - 1], f1_interval=(0.0, 1.0))

    def sample(self, student):
        self.sampled.append(student.name)
        return Extras([Row(student.name, "{}", "student")] if len(self.sampled) < self.dry else [])

    def run(self, most=9, least_gain=0.002):
        return run_rounds(self.train, self.measure, self.sample, most, least_gain)


def test_rounds_go_on_while_dev_f1_gains_and_the_best_student_is_kept():
    play = Play(0.80, 0.85, 0.88, 0.87, 0.99)
    done = play.run()
    assert [one.f1 for one in done.rounds] == [0.80, 0.85, 0.88, 0.87]
    assert done.student.name == "student-3"
    assert play.sampled == ["student-1", "student-2", "student-3"]


def test_a_round_learns_from_the_student_before_it_alone():
    play = Play(0.1, 0.2, 0.3)
    done = play.run(most=3)
    assert [[row.query for row in extras.rows] for extras in play.trained] == [[], ["student-1"], ["student-2"]]
    assert [(one.number, one.rows, one.extras) for one in done.rounds] == [(1, 100, 0), (2, 101, 1), (3, 101, 1)]
    json.dumps([one.to_json() for one in done.rounds])


@pytest.mark.parametrize(("second", "rounds"), [(0.8019, 2), (0.8021, 3)])
def test_a_gain_too_small_ends_the_rounds(second, rounds):
    assert len(Play(0.8, second, 0.9).run(most=3).rounds) == rounds


def test_of_equal_students_the_first_is_kept():
    assert Play(0.8, 0.8).run(least_gain=0.0, most=2).student.name == "student-1"


def test_there_are_at_most_so_many_trainings_and_the_last_is_not_sampled():
    play = Play(*(0.1 * number for number in range(1, 9)))
    assert len(play.run(most=3).rounds) == 3
    assert len(play.sampled) == 2


def test_with_nothing_to_add_there_is_no_further_training():
    assert len(Play(0.1, 0.2, 0.3, dry=1).run().rounds) == 1


# What a night does by default: nothing.


def test_by_default_nothing_comes_before_or_after_the_training_and_no_query_is_held_out(tmp_path):
    night = begin(tmp_path, labels_of(), gold={QUERIES[0]: "x"})
    one, adapter = recipe(), Path("adapter")
    assert pretrained(night, one) is one
    assert after_training(night, one, adapter, Path("no dataset")) is adapter
    assert dev_split(night) == {}
    trained = []

    def train(extras):
        trained.append(extras)
        return Trained(Path("student"), 100, 0)

    done = train_in_rounds(night, {}, train)
    assert (done.student, done.rounds, trained) == (Path("student"), [], [Extras()])
    assert said(night) == ""


def test_too_few_queries_to_measure_on_are_said_and_there_is_one_round(tmp_path):
    night = begin(tmp_path, labels_of(QUERIES[:20]), **MORE)
    done = train_in_rounds(night, dev_split(night), lambda _: Trained(Path("student"), 100, 0))
    assert (done.student, done.rounds) == (Path("student"), [])
    assert "queries to measure a second one on, 50 wanted" in said(night)


# What a round measures on, and what it learns from.


def test_rounds_are_measured_on_labels_and_peoples_answers_of_the_dev_split_and_never_on_gold(tmp_path):
    dev = [query for query in QUERIES if split_of(query) == "dev"]
    labels = labels_of()
    at = QUERIES.index
    labels[at(dev[0])] = label(900, query=dev[0], status="rejected")
    labels[at(dev[1])] = label(901, query=dev[1], status="rejected")
    verdicts = [verdict(901, "corrected", roles("right"), query=dev[1])]
    night = begin(tmp_path, labels, verdicts, gold={dev[2]: "x"}, **MORE)
    found = dev_split(night)
    assert set(found) == set(dev) - {dev[0], dev[2]}
    assert found[dev[1]].product == "right"
    assert len(found) <= DEV


def test_the_student_is_sampled_on_nothing_that_measures_nor_near_it(tmp_path):
    bad = {query: label(1000 + place, query=query, status="rejected") for place, query in enumerate(QUERIES)}
    gold = {QUERIES[5]: "x", " ".join(reversed(QUERIES[9].split())): "y"}
    judged = next(query for query in QUERIES[10:] if split_of(query) == "test")
    sure = labels_of([f"{query} sure" for query in QUERIES[:60]], confidence=0.99)
    near_dev = label(2000, query=f"{QUERIES[30]}s", status="rejected")
    labels = [*bad.values(), *sure, near_dev]
    night = begin(tmp_path, labels, [verdict(1, "cant_tell", None, query=judged)], gold=gold, **MORE)
    dev = {QUERIES[30]: SemanticRoles(product="x", brand="", attributes=[])}
    without, held_against = askable(night, dev)
    asked = [one.query for one in (*without, *held_against)]
    measures = held_out(night) | set(dev)
    assert judged in measures
    assert {QUERIES[5], QUERIES[9], QUERIES[30], near_dev.query, judged}.isdisjoint(asked)
    assert not any(near_duplicates(asked, measures))
    assert len(asked) > 200


def test_what_has_no_label_to_learn_from_is_asked_by_traffic_and_what_is_sure_is_held_against(tmp_path):
    names = [f"{one} quince" for one in WORDS[:6]]
    labels = [
        label(0, query=names[0], status="failed", value=None),
        label(1, query=names[1], confidence=0.95),
        label(2, query=names[2], confidence=0.4),
        label(3, query=names[3], confidence=0.8),
        label(4, query=names[4], status="rejected"),
        label(5, query=names[5], status="rejected"),
    ]
    night = begin(tmp_path, labels, [verdict(5, "corrected", roles("x"), query=names[5])], **MORE)
    without, sure = askable(night, {})
    assert [one.query for one in without] == [names[0], names[2], names[4]]
    assert [one.query for one in sure] == [names[1]]
    few = begin(tmp_path / "few", labels, student__rounds__queries=2, **MORE)
    assert [one.query for one in askable(few, {})[0]] == [names[0], names[2]]


def test_a_calibration_says_what_a_confidence_is_worth(tmp_path):
    night = begin(tmp_path, [label(0, confidence=0.4), label(1, confidence=0.95)], **MORE)
    assert calibrated(night)(0.4) == 0.4
    write_json(night.folder / "calibration.json", {"x": [0.0, 1.0], "y": [0.6, 0.7]})
    assert calibrated(night)(0.5) == pytest.approx(0.65)
    without, sure = askable(night, {})
    assert (without, sure) == ([], []), "sure enough to train, not sure enough to hold a sample against"


def test_the_students_own_confidence_is_calibrated_where_dev_is_large_enough(tmp_path):
    night = begin(tmp_path, labels_of(QUERIES[:1]), **MORE)
    right = SemanticRoles(product="milk", brand="", attributes=[])
    dev = {f"query {number}": right for number in range(300)}
    sampled = {query: Best(roles("milk" if int(query[6:]) % 2 else "bread"), 1.0, 0.9) for query in dev}
    assert student_calibration(night, sampled, dev)(0.9) == pytest.approx(0.5, abs=0.02)
    few = dict(list(sampled.items())[:20])
    assert student_calibration(night, few, dev)(0.9) == 0.9


def test_samples_that_are_sure_enough_become_rows_and_those_that_contradict_a_label_pairs(tmp_path):
    queries = ["oat milk", "rye bread", "spice zephyr"]
    labels = [label(place, query=query, value=roles(query)) for place, query in enumerate(queries)]
    night = begin(tmp_path, labels, **MORE)
    sampled = {
        "oat milk": Best(roles("oat milk"), 1.0, 0.8),
        "rye bread": Best(roles("bread"), 1.0, 0.4),
        "spice zephyr": None,
    }
    [row] = extra_rows(night, labels, sampled, lambda sure: sure)
    assert (row.query, row.value, row.source, row.difficulty) == ("oat milk", roles("oat milk"), "student", 0.2)
    assert (row.band, row.traffic) == ("torso", 1000)
    assert len(extra_rows(night, labels, sampled, lambda _: 0.9)) == 2
    assert extra_pairs(SemanticRoles, labels, sampled) == [("rye bread", roles("rye bread"), roles("bread"))]
    reordered = {"oat milk": Best(roles("oat milk", attributes=["b", "a"]), 1.0, 1.0)}
    ordered = [label(7, query="oat milk", value=roles("oat milk", attributes=["a", "b"]))]
    assert extra_pairs(SemanticRoles, ordered, reordered) == []


# Second steps.


def test_gold_and_whatever_resembles_it_is_not_in_the_pretraining_text(tmp_path):
    titles = ["Verdant Machine Juice", "Juice Verdant Machine", "verdantmachine  juice", "Rye Bread 500 G", None, " "]
    pq.write_table(pa.table({"title": titles}), tmp_path / "catalogue.parquet")
    judged = next(query for query in QUERIES if split_of(query) == "test")
    labels = labels_of(["verdant machine juice", "verdant machine juices", "oat milk", judged])
    night = begin(
        tmp_path,
        labels,
        [verdict(1, "right", roles("x"), query=judged)],
        gold={"verdant machine juice": "juice"},
        catalogue__path=str(tmp_path / "catalogue.parquet"),
    )
    assert pretraining_texts(night) == ["Rye Bread 500 G", "oat milk"]


def test_too_few_corrections_are_said_and_nothing_is_trained(tmp_path):
    night = begin(tmp_path, labels_of(QUERIES[:1]), student__dpo__epochs=1, student__dpo__least_pairs=3)
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    pairs = [{"query": query, "chosen": "a", "rejected": "b"} for query in ("one", "two", "two")]
    pq.write_table(pa.Table.from_pylist(pairs), dataset / "preferences.parquet")
    assert after_training(night, recipe(), Path("adapter"), dataset) == Path("adapter")
    assert "no DPO: 2 preference pairs, 3 wanted (student.dpo.least_pairs)" in said(night)


def test_pretraining_without_general_text_warns_that_forgetting_is_not_measured(tmp_path):
    titles = [f"{one} {two} 500 g" for one in WORDS[:10] for two in WORDS[:4]]
    pq.write_table(pa.table({"title": titles}), tmp_path / "catalogue.parquet")
    night = begin(
        tmp_path,
        labels_of(QUERIES[:3]),
        catalogue__path=str(tmp_path / "catalogue.parquet"),
        student__pretrain__epochs=1,
        student__pretrain__block=32,
        student__pretrain__learning_rate=1e-3,
    )
    found = pretrained(night, recipe())
    assert Path(found.base).parent == night.work / "bases"
    assert found.revision is None
    assert "nothing" not in found.base
    assert "no general text is replayed: what the base forgets of it is neither held back nor measured" in said(night)
    assert "on general text not measured" in said(night)
    manifest = read_manifest(Path(found.base))
    assert (manifest["general_before"], manifest["general_after"], manifest["replay_tokens"]) == (None, None, 0)
