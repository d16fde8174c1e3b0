"""What a verdict does: in the cache, in training, among the examples, as gold."""

import json
from functools import partial

import pyarrow.parquet as pq
import pytest

from cache.layout import parse_entry
from evals.item import Item
from evals.queue import ReviewQueue
from flows.evaluate import agreement_queries
from flows.head import head_of, people_entries, teacher_entries
from flows.people import LEAST_GOLD, answers_of, gold_of, held_out, reviewers_json, verdicts_of
from labels.split import split_of
from student.dataset import build_dataset
from tests.flows import night_by_hand
from tests.flows.night_by_hand import label, roles, verdict


@pytest.fixture
def begin(tmp_path):
    return partial(night_by_hand.begin, tmp_path)


def test_a_verdict_outranks_the_teacher_in_the_cache_even_on_a_label_made_anew_since(begin):
    labels = [label(number, value=roles("milk")) for number in range(10)]
    said = [
        verdict(3, "corrected", roles("tea")),
        verdict("old", "corrected", roles("rice"), query="query 4"),  # its label is not among tonight's
        verdict(5, "cant_tell"),
    ]
    night = begin(labels, said)
    assert teacher_entries(night)["query 3"] != people_entries(night)["query 3"]
    entries = {query: parse_entry(raw, tuple(night.task.model_fields)) for query, raw in head_of(night).entries}
    assert (entries["query 3"].value["product"], entries["query 3"].author) == ("tea", "person")
    assert (entries["query 4"].value["product"], entries["query 4"].confidence) == ("rice", 1)
    assert (entries["query 5"].value["product"], entries["query 5"].author) == ("milk", "teacher")


def test_a_verdict_publishes_what_a_guardrail_had_turned_down(begin):
    labels = [label(1), label(2, status="rejected")]
    night = begin(labels, [verdict(2, "corrected", roles("tea"))])
    assert {query for query, _ in head_of(night).entries} == {"query 1", "query 2"}


def test_verdicts_of_another_task_or_version_say_nothing_here_and_simulated_ones_only_in_the_demo(begin):
    said = [
        verdict(1, "corrected", roles("tea"), task="other"),
        verdict(2, "corrected", roles("tea"), task_version="older"),
        verdict(3, "corrected", roles("tea"), simulated=True),
        verdict(4, "corrected", roles("tea")),
    ]
    labels = [label(number) for number in range(6)]
    assert [one.identity for one in verdicts_of(begin(labels, said))] == ["id4"]
    demo = begin(labels, night="n2", review__simulated=True)
    assert [one.identity for one in verdicts_of(demo)] == ["id3", "id4"]


def test_of_two_labels_of_a_query_the_later_verdict_is_the_answer(begin):
    said = [verdict(1, "corrected", roles("tea"), query="q"), verdict(2, "corrected", roles("rice"), query="q")]
    assert [json.loads(one.value)["product"] for one in answers_of(begin([label(1, query="q")], said))] == ["rice"]


def test_verified_queries_of_the_dev_and_test_split_never_train_nor_are_their_corrections_pairs(begin, tmp_path):
    labels = [label(number, query=f"{number} cow milk {number * 7919}") for number in range(400)]
    said = [verdict(n, "corrected", roles("tea"), query=labels[n].query, draft=labels[n].value) for n in range(100)]
    night = begin(labels, said)
    kept = {one.query for one in said if split_of(one.query) != "train"}
    assert 5 < len(kept) < 50
    assert held_out(night) == kept
    dataset = build_dataset(night.task, night.labels, answers_of(night), held_out(night), tmp_path / "d")
    trained = set(pq.read_table(dataset.folder / "train.parquet")["query"].to_pylist())
    pairs = pq.read_table(dataset.folder / "preferences.parquet").to_pylist()
    assert not trained & kept
    assert dataset.verified == dataset.corrected == len(pairs) == len(trained & {one.query for one in said}) > 0
    assert all(pair["query"] in trained and pair["chosen"] == roles("tea") != pair["rejected"] for pair in pairs)


def test_enough_verified_test_queries_of_the_tail_measure_where_no_gold_file_is_given(begin):
    labels = [label(number) for number in range(800)]
    tail = {one.query for one in labels}
    few = [verdict(number, "right", roles("milk")) for number in range(20)]
    night = begin(labels, few)
    assert gold_of(night, [], tail) == {}
    assert agreement_queries(night)
    many = [verdict(number, "right", roles("milk")) for number in range(20, 800)]
    night = begin(labels, many, night="n2")
    right = gold_of(night, [], tail)
    assert len(right) >= LEAST_GOLD
    assert {split_of(query) for query in right} == {"test"}
    assert gold_of(night, [], set(list(right)[: LEAST_GOLD - 1])) == {}
    with_file = begin(labels, night="n3", gold={"query 1": "tea"})
    assert {query: answer.product for query, answer in gold_of(with_file, [], tail).items()} == {"query 1": "tea"}


def test_a_query_verified_only_after_it_trained_the_student_does_not_measure(begin):
    labels = [label(number, query=f"{number * 7919} cow milk") for number in range(800)]
    night = begin(labels, [verdict(n, "right", roles(), query=labels[n].query) for n in range(800)])
    right = gold_of(night, [], {one.query for one in labels})
    trained = list(right)[:10]
    left = gold_of(night, trained, {one.query for one in labels})
    assert left
    assert not set(left) & set(trained)


def test_a_query_that_ever_measured_never_trains_though_its_verdict_was_taken_back_or_of_another_task(begin):
    labels = [label(number) for number in range(40)]
    night = begin(labels, [verdict(number, "right", roles(), task_version="older") for number in range(20)])
    queue = ReviewQueue(night.warehouse.said)
    queue.fill([Item(one, "audit", "tail", 1.0) for one in labels[20:]], "n1")
    while given := queue.take("ann", 1):
        queue.submit("ann", given[0].lease, "right", roles())
    while queue.undo("ann"):
        pass
    assert answers_of(night) == []
    kept = {one.query for one in labels if split_of(one.query) != "train"}
    assert held_out(night) == kept != set()


def test_a_person_outranks_a_later_simulated_verdict_on_a_label_made_anew(begin):
    said = [
        verdict(1, "corrected", roles("tea"), query="q"),
        verdict(2, "right", roles("milk"), query="q", simulated=True, reviewer="simulated"),
    ]
    night = begin([label(2, query="q")], said, review__simulated=True)
    assert [json.loads(one.value)["product"] for one in answers_of(night)] == ["tea"]


def test_agreement_is_of_this_task_as_it_is_now(begin):
    other = [verdict(1, "right", '{"category":"x"}', task="other", reviewer=who) for who in ("ann", "bo")]
    ours = [verdict(n, "right", roles(f"p{n}"), reviewer=who) for n in (2, 3) for who in ("ann", "bo")]
    found = reviewers_json(begin([label(1)], [*other, *ours]))
    assert found["agreement"]["product"]["labels"] == 2
