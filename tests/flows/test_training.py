import contextlib
import io
import json
import shutil

import pytest

from demo.base_for import write_base
from demo.queryner_tasks import QueryNerCollapsed
from flows.settings import ROOT, load_settings
from flows.training import alone_in, train_on_file
from labels.errors import BusyError, EngineError, InputError
from labels.files import MANIFEST, read_manifest
from student.dataset import read_dataset
from student.near import near_duplicates

TASK = "demo.queryner_tasks:QueryNerCollapsed"
BRANDS = [
    f"{a}{b}" for a in ("quin", "zork", "plov", "mux", "brid") for b in ("tal", "dop", "ger", "wisk", "lum", "fent")
]
THINGS = ["bath mat", "desk lamp", "oat milk", "running shoes"]
ROWS = [(f"{brand} {thing}", thing, brand) for brand in BRANDS for thing in THINGS]
HELD_OUT = ["quintal bath mat", "lamp desk zorkdop"]


def row(query, thing, brand, attributes=()):
    return json.dumps({"query": query, "product_type": [thing], "brand": [brand], "attribute": list(attributes)}) + "\n"


def write(path, rows):
    path.write_text("".join(row(*one) for one in rows))
    return str(path)


@pytest.fixture(scope="module")
def settings_for(tmp_path_factory):
    """Settings of a tiny training on the demo's base, made ready for the task; by the work folder and other changes."""
    base = tmp_path_factory.mktemp("base") / "ready"
    write_base(QueryNerCollapsed, str(ROOT / "demo/models/student-base"), base)

    def make(work, **other):
        changes = {
            "task": TASK, "work": str(work), "student.base": str(base), "student.epochs": 1, "student.rank": 4,
            "student.max_tokens": 20,
        }  # fmt: skip
        return load_settings("laptop", changes | {name.replace("__", "."): value for name, value in other.items()}, {})

    return make


@pytest.fixture(scope="module")
def trained(settings_for, tmp_path_factory):
    """A student trained on a file with two bad rows: what the command returned and said, its settings, and how to run it
    again.
    """
    folder = tmp_path_factory.mktemp("trained")
    bad = [
        ("green rug", "carpet", "", ()),
        ("lego set", "set", "lego", ["lego set"] * 1 + [f"lego {n}" for n in "abcdefg"]),
    ]
    data = write(folder / "data.jsonl", [*ROWS, *bad])
    gold = write(folder / "gold.jsonl", [(query, "lamp", "x") for query in HELD_OUT])

    def again():
        return train_on_file(settings_for(folder / "work", gold__path=gold), data)

    settings = settings_for(folder / "work", gold__path=gold)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        found = train_on_file(settings, data)
    return found, " ".join(said.getvalue().split()), settings, again


def test_the_student_is_a_finished_model_and_the_next_command_measures_it(trained):
    found, _, settings, _ = trained
    model = settings.folder / "students" / found["student"]
    assert found["folder"] == str(model)
    assert read_manifest(model)["dataset"] == str(found["dataset"]).rpartition("/")[2]
    assert (model / "model.safetensors").exists()
    assert "queryner_collapsed" in (model / "README.md").read_text()
    assert found["next"].startswith(f"stillhouse evaluate --student {found['student']} --data {settings.gold.path} ")
    assert found["next"].endswith(f"--task {TASK} --work {settings.work}")


def test_what_measures_and_what_is_near_it_does_not_train_and_all_rows_are_counted(trained):
    found, _, settings, _ = trained
    rows = read_dataset(settings.folder / "datasets" / str(found["dataset"]).rpartition("/")[2])
    queries = [one.query for one in rows]
    assert not any(near_duplicates(queries, HELD_OUT))
    assert "zorkdop desk lamp" not in queries
    assert found["left_out"]["held out"] == 1
    assert found["left_out"]["near gold"] >= 1
    assert found["rows"] == len(rows) == len(ROWS) + 2 - sum(found["left_out"].values())
    given = {query: (thing, brand) for query, thing, brand in ROWS}
    for one in rows:
        if one.query in given:
            thing, brand = given[one.query]
            assert json.loads(one.value) == {"product_type": [thing], "brand": [brand], "attribute": []}


def test_answers_that_could_never_be_served_are_named(trained):
    _, said, _, _ = trained
    assert "2 of the 122 right answers would not pass the task's guardrails" in said
    assert "grounded: product_type 'carpet'" in said
    assert "1 of the 122 right answers have more than student.max_tokens = 20 tokens" in said


def test_a_second_run_trains_nothing(trained):
    found, _, settings, again = trained
    made = {path: path.stat().st_mtime_ns for path in settings.folder.rglob(MANIFEST)}
    assert again() == found
    assert {path: path.stat().st_mtime_ns for path in settings.folder.rglob(MANIFEST)} == made


def test_data_or_a_base_that_can_not_be_used_leaves_nothing(settings_for, tmp_path):
    few = write(tmp_path / "few.jsonl", ROWS[:20])
    other = tmp_path / "other.jsonl"
    other.write_text('{"query": "oat milk", "product": "milk"}\n')
    work = tmp_path / "work"
    for data, says in ((few, "has 20 rows of 20 labels, wanted at least 100"), (str(other), "has no column")):
        with pytest.raises(InputError, match=says):
            train_on_file(settings_for(work), data)
    bare = tmp_path / "bare"  # weights, and no tokenizer
    bare.mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(ROOT / "demo/models/student-base" / file, bare)
    enough = write(tmp_path / "enough.jsonl", ROWS)
    for base, says in (
        ("./nowhere", "no model at"),
        ("nobody/nothing", "the base nobody/nothing can't be loaded"),
        (bare, f"the base {bare} can't be loaded"),
    ):
        with pytest.raises(EngineError, match=says):
            train_on_file(settings_for(work, student__base=str(base)), enough)
    assert not [*work.rglob(MANIFEST)]


def test_one_training_at_a_time_holds_the_work_folder(settings_for, tmp_path):
    with alone_in(tmp_path / "work"), pytest.raises(BusyError, match=r"another night is running in .*, or a training"):
        train_on_file(settings_for(tmp_path / "work"), "any.jsonl")
