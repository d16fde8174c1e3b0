import json
import re
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from labels.errors import InputError
from labels.files import MANIFEST, read_manifest
from student.dataset import MINIMUM_ROWS, read_dataset, read_replay_rows
from student.near import near_duplicates
from student.selection import Selection
from tests.labels.shop import label, verdict
from tests.student.rows import QUERIES, WORDS, accepted, build, value


def test_gold_and_whatever_resembles_it_never_trains(tmp_path):
    gold = ["verdant machine orange juice", QUERIES[3], QUERIES[50]]
    near = [
        "verdant machine orange juices", "orange juice verdant machine", "verdant machin orange juice",
        "verdantmachine orange juice", " ".join(reversed(QUERIES[50].split())), QUERIES[3] + "s",
    ]  # fmt: skip
    dataset, rows = build(tmp_path, [accepted(query) for query in [*QUERIES, *near, gold[0]]], gold=gold)
    assert not set(rows) & {*gold, *near}
    assert dataset.held_out == 3
    assert dataset.near_gold >= len(near)
    assert dataset.rows == len(rows) == len(QUERIES) + 1 + len(near) - dataset.held_out - dataset.near_gold
    assert not any(near_duplicates(list(rows), gold))
    assert "verdant machine" not in " ".join(rows)


def test_what_people_corrected_outranks_the_teacher(tmp_path):
    one, two, three = QUERIES[:3]
    verdicts = [
        verdict(1, "corrected", value("right"), query=one),
        verdict(2, "right", value("as the teacher said"), query=two),
        verdict(3, "cant_tell", None, query=three),
        verdict(4, "corrected", value("not in the log"), query="elsewhere"),
    ]
    dataset, rows = build(tmp_path, [accepted(query) for query in QUERIES], verdicts)
    assert rows[one] == value("right")
    assert (rows[two], rows[three]) == (value("as the teacher said"), value(three))
    assert (dataset.verified, dataset.corrected) == (2, 2)
    assert "elsewhere" not in rows


def test_what_people_answered_trains_though_the_label_was_rejected(tmp_path):
    labels = [*(accepted(query) for query in QUERIES), label("r", query="rejected one", status="rejected")]
    _, rows = build(tmp_path, labels, [verdict("r", "corrected", value("right"), query="rejected one")])
    assert rows["rejected one"] == value("right")


def test_a_correction_of_a_gold_query_does_not_smuggle_it_in(tmp_path):
    verdicts = [verdict(1, "corrected", value("right"), query=QUERIES[0])]
    _, rows = build(tmp_path, [accepted(query) for query in QUERIES], verdicts, gold=[QUERIES[0]])
    assert QUERIES[0] not in rows


def test_only_accepted_labels_train(tmp_path):
    labels = [accepted(query) for query in QUERIES]
    labels += [
        label("r", query="rejected one", status="rejected"),
        label("f", query="failed", status="failed", value=None),
    ]
    dataset, rows = build(tmp_path, labels)
    assert set(rows) == set(QUERIES)
    assert (dataset.held_out, dataset.near_gold) == (0, 0)


def test_too_few_rows_are_refused_with_what_to_do(tmp_path):
    labels = [accepted(query) for query in QUERIES[:MINIMUM_ROWS]]
    assert build(tmp_path, labels)[0].rows == MINIMUM_ROWS
    wanted = f"has {MINIMUM_ROWS - 1} rows of {MINIMUM_ROWS} labels, wanted at least {MINIMUM_ROWS}: give more"
    with pytest.raises(InputError, match=wanted):
        build(tmp_path / "other", labels, gold=[QUERIES[0]])
    assert not (tmp_path / "other").exists()


def test_the_same_input_is_the_same_folder_whatever_its_order_and_other_input_another(tmp_path):
    labels = [accepted(query) for query in QUERIES]
    first, rows = build(tmp_path, labels)
    again, _ = build(tmp_path, labels[::-1])
    assert (first.built, again.built) == (True, False)
    assert first.folder == again.folder
    corrected, _ = build(tmp_path, labels, [verdict(1, "corrected", value("x"), query=QUERIES[0])])
    assert corrected.folder != first.folder
    assert list(rows) == sorted(rows)


def test_a_dataset_exists_once_its_manifest_does(tmp_path):
    labels = [accepted(query) for query in QUERIES]
    folder = build(tmp_path, labels)[0].folder
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert max(times, key=times.get) == MANIFEST
    (folder / MANIFEST).unlink()
    (folder / "train.parquet").write_bytes(b"half")
    dataset, rows = build(tmp_path, labels)
    assert dataset.built
    assert len(rows) == read_manifest(folder)["rows"] == len(QUERIES)


def test_a_row_says_who_answered_how_hard_it_is_and_how_often_it_comes(tmp_path):
    labels = [accepted(query, sure=0.75) for query in QUERIES]
    dataset = build(
        tmp_path, labels, [verdict(1, "right", value("x"), query=QUERIES[0])], selection=Selection(verified_weight=3),
        traffic={QUERIES[0]: 7.5}, bands={QUERIES[0]: "head"}, confidence=lambda one: one.confidence["product"] + 0.125,
    )[0]  # fmt: skip
    rows = {row.query: row for row in read_dataset(dataset.folder)}
    one, other = rows[QUERIES[0]], rows[QUERIES[1]]
    assert (one.source, one.band, one.traffic, one.difficulty, one.times) == ("people", "head", 7.5, 0.125, 3)
    assert (other.source, other.band, other.traffic, other.difficulty, other.times) == ("teacher", "tail", 1, 0.125, 1)


@pytest.mark.parametrize(
    "how",
    [
        {"traffic": {QUERIES[0]: 2.0}},
        {"bands": {QUERIES[0]: "head"}},
        {"confidence": lambda one: 0.8},
        {"selection": Selection(rows=MINIMUM_ROWS)},
    ],
)
def test_whatever_changes_a_row_changes_the_name(tmp_path, how):
    labels = [accepted(query) for query in QUERIES]
    assert build(tmp_path, labels, **how)[0].folder != build(tmp_path, labels)[0].folder


def test_labels_without_an_answer_to_learn_from_are_refused(tmp_path):
    labels = [label(n, status="rejected") for n in range(200)] + [label("f", status="failed", value=None)]
    with pytest.raises(InputError, match=r"nothing to learn from: .* of 201 \(failed 1, rejected 200\); see"):
        build(tmp_path, labels)
    with pytest.raises(InputError, match="nothing to learn from"):
        build(tmp_path, [])


def test_one_class_only_is_refused(tmp_path):
    labels = [accepted(query, answer="milk") for query in QUERIES]
    with pytest.raises(InputError, match=r'all 160 rows .* the same answer, \{"product":"milk"'):
        build(tmp_path, labels)
    assert build(tmp_path, [*labels[1:], accepted(QUERIES[0])])[0].rows == 160


def test_gold_that_is_all_the_log_leaves_nothing_and_says_why(tmp_path):
    wanted = (
        r"has 0 rows of 160 labels, .* or other gold: 160 of these labels are of queries that measure, .*held out 160"
    )
    with pytest.raises(InputError, match=wanted):
        build(tmp_path, [accepted(query) for query in QUERIES], gold=QUERIES)


OTHERS = [f"{one} {other}" for one in WORDS[8:] for other in WORDS[8:] if one < other][:MINIMUM_ROWS]
some_query = st.lists(st.sampled_from(WORDS[:8]), min_size=1, max_size=3).map(" ".join)
typo = st.builds(
    lambda text, at, char: text[:at] + char + text[at:], some_query, st.integers(0, 20), st.sampled_from("es")
)
decision = st.sampled_from(["right", "corrected", "cant_tell"])


@given(
    asked=st.lists(some_query | typo, min_size=5, max_size=30),
    gold=st.lists(some_query | typo, max_size=10),
    said=st.lists(st.tuples(some_query, decision), max_size=5, unique_by=lambda one: one[0]),
    status=st.sampled_from(["accepted", "rejected"]),
)
@settings(
    max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nothing_equal_or_near_to_gold_trains_and_every_label_is_counted_once(tmp_path, asked, gold, said, status):
    source = tmp_path / "general.jsonl"
    source.write_text("".join(json.dumps({"prompt": text, "completion": "yes"}) + "\n" for text in [*asked, "unlike"]))
    labels = [accepted(query) for query in OTHERS] + [replace(accepted(query), status=status) for query in asked]
    verdicts = [verdict(n, how, value("right"), query=q, draft=value("x")) for n, (q, how) in enumerate(said)]
    selection = Selection(near=1.0, replay=str(source), replay_share=1.0)
    dataset, rows = build(tmp_path, labels, verdicts, gold, selection=selection)
    pairs = pq.read_table(dataset.folder / "preferences.parquet")["query"].to_pylist()
    replayed = [row.prompt[-1]["content"] for row in read_replay_rows(dataset.folder)]
    assert not any(near_duplicates([*rows, *pairs, *replayed], gold))
    assert "unlike" in replayed
    assert dataset.rows + sum(dataset.left_out.values()) == len(labels)
    assert set(pairs) <= set(rows)


def test_the_card_is_one_the_hub_reads_and_holds_the_manifests_figures(tmp_path):
    import datasets

    labels = [*(accepted(query) for query in QUERIES), label("r", query="rejected one", status="rejected")]
    verdicts = [verdict(1, "corrected", value("x"), query=QUERIES[0], draft=value(QUERIES[0]))]
    dataset, rows = build(tmp_path, labels, verdicts, bands=dict.fromkeys(QUERIES, "head"))
    said, facts = DatasetCard.load(dataset.folder / "README.md"), read_manifest(dataset.folder)
    assert "160 queries with the answer" in said.text
    assert "| turned down by a guardrail | 1 |" in said.text
    assert "| head | 160 | 160 | 100% |" in said.text
    assert all(f"| {name} | `{sha}` |" in said.text for name, sha in facts["files"].items())
    assert sorted(facts["files"]) == ["preferences.parquet", "replay.parquet", "train.parquet"]
    assert said.data.size_categories == ["n<1K"]
    loaded = {
        name: datasets.load_dataset(str(dataset.folder), name, split="train", streaming=True)
        for name in (config["config_name"] for config in said.data.configs)
    }
    assert [row["query"] for row in loaded["default"]] == list(rows)
    assert [row["chosen"] for row in loaded["preferences"]] == [value("x")]
    assert (facts["rows"], facts["pairs"], facts["left_out"]["rejected"]) == (160, 1, 1)
    assert re.fullmatch("[0-9a-f]{64}", facts["files"]["train.parquet"])
