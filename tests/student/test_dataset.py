import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.errors import InputError
from labels.files import MANIFEST, read_manifest
from labels.records import Label
from labels.semantic_roles import SemanticRoles
from student.dataset import MINIMUM_ROWS, build_dataset, read_dataset
from student.near import near_duplicates
from tests.labels.shop import label, verdict

WORDS = [
    f"{a}{b}" for a in ("quin", "zork", "plov", "mux", "brid") for b in ("tal", "dop", "ger", "wisk", "lum", "fent")
]
QUERIES = [f"{one} {other}" for one in WORDS for other in WORDS if one < other][: MINIMUM_ROWS + 60]


def value(product):
    return SemanticRoles(product=product, brand="", attributes=[]).to_json()


def accepted(query) -> Label:
    return label(query, query=query, value=value(query))


def build(tmp_path, labels, verdicts=(), gold=()):
    dataset = build_dataset(SemanticRoles, labels, verdicts, gold, tmp_path)
    return dataset, {row.query: row.value for row in read_dataset(dataset.folder)}


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
    wanted = f"has {MINIMUM_ROWS - 1} rows of {MINIMUM_ROWS} labels, wanted at least {MINIMUM_ROWS}: give a longer log"
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
