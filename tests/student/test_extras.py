import pyarrow.parquet as pq
import pytest

from labels.errors import InputError
from labels.files import MANIFEST, read_manifest
from labels.semantic_roles import SemanticRoles
from student.dataset import MINIMUM_ROWS, build_dataset, read_dataset
from student.dpo import read_pairs
from student.extras import Extras, extend_dataset
from student.rows import Row
from tests.labels.shop import label, verdict

WORDS = (
    "quintal",
    "zorkdop",
    "plovger",
    "muxwisk",
    "bridlum",
    "tarnfen",
    "gallop",
    "hister",
    "yondle",
    "vexil",
    "oprin",
)
QUERIES = [f"{one} {other}" for one in WORDS for other in WORDS]


def value(product):
    return SemanticRoles(product=product, brand="", attributes=[]).to_json()


VALUE = value("zork")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    labels = [label(place, query=query, value=value(query)) for place, query in enumerate(QUERIES)]
    said = [verdict(3, "corrected", value("right"), query=QUERIES[3], draft=value(QUERIES[3]))]
    made = build_dataset(SemanticRoles, labels, said, [], tmp_path_factory.mktemp("datasets"))
    assert made.rows >= MINIMUM_ROWS
    assert made.pairs == 1
    return made.folder


def test_what_labels_and_people_said_goes_before_what_the_student_says(dataset, tmp_path):
    rows, pairs = read_dataset(dataset), read_pairs(dataset)
    new = Row("zork", VALUE, "student", "torso", 7.0, 0.25)
    extras = Extras([new, Row(rows[0].query, VALUE, "student")], [("zork", VALUE, "x"), (pairs[0][0], VALUE, "y")])
    folder = extend_dataset(dataset, extras, tmp_path)
    assert sorted(read_dataset(folder), key=lambda row: row.query) == sorted([*rows, new], key=lambda row: row.query)
    assert sorted(read_pairs(folder)) == sorted([*pairs, ("zork", VALUE, "x")])


def test_an_extended_dataset_says_what_it_came_from_and_holds_all_of_it(dataset, tmp_path):
    folder = extend_dataset(dataset, Extras([Row("zork", VALUE, "student")]), tmp_path)
    manifest, before = read_manifest(folder), read_manifest(dataset)
    assert manifest["parent"] == dataset.name
    assert (manifest["rows"], manifest["extra_rows"], manifest["extra_pairs"]) == (before["rows"] + 1, 1, 0)
    assert manifest["task"] == before["task"]
    assert {file.name for file in folder.iterdir()} == {file.name for file in dataset.iterdir()}
    assert manifest["files"]["train.parquet"] != before["files"]["train.parquet"]
    assert pq.read_table(folder / "replay.parquet").equals(pq.read_table(dataset / "replay.parquet"))
    assert "1 rows and 0 pairs" in (folder / "README.md").read_text()


def test_it_is_made_once_and_only_where_there_is_something_to_add(dataset, tmp_path):
    assert extend_dataset(dataset, Extras(), tmp_path) == dataset
    extras = Extras([Row("zork", VALUE, "student")])
    folder = extend_dataset(dataset, extras, tmp_path)
    made = (folder / MANIFEST).stat().st_mtime_ns
    assert extend_dataset(dataset, extras, tmp_path) == folder
    assert (folder / MANIFEST).stat().st_mtime_ns == made
    (folder / MANIFEST).unlink()
    (folder / "train.parquet").write_bytes(b"half")
    assert len(read_dataset(extend_dataset(dataset, extras, tmp_path))) == len(read_dataset(dataset)) + 1


def test_an_unfinished_dataset_is_not_extended(tmp_path):
    (tmp_path / "half").mkdir()
    with pytest.raises(InputError, match="was never finished"):
        extend_dataset(tmp_path / "half", Extras(pairs=[("a", "b", "c")]), tmp_path)
