import os
import re
import shutil

import pytest
from huggingface_hub import ModelCard

from labels.errors import InputError
from labels.files import MANIFEST, read_manifest, write_json, write_manifest
from labels.semantic_roles import SemanticRoles
from student.merge import merge
from student.model_card import write_card
from student.reference import read_reference
from student.registry import Figure, collect, record_metrics, students
from tests.student.adapters import drawn_adapter
from tests.student.training import recipe

FIGURES = [
    Figure("F1", 0.8861, "1,002 gold queries outside the head", 0.871, 0.899),
    Figure("p99", 81.25, "200 requests, 8 at once", unit="ms"),
]


@pytest.fixture
def house(tmp_path):
    """Eight students, s1 the oldest, each of an adapter of its own; s3 has a variant, and s5 began from s4's adapter."""
    for day in range(1, 9):
        made(tmp_path, f"student-{day}", day, f"a{day}")
        write_manifest(tmp_path / "adapters" / f"a{day}", **({"parent": "a4"} if day == 5 else {}))
        (tmp_path / "adapters" / f"a{day}" / "adapter_model.safetensors").write_bytes(b"weights")
    made(tmp_path, "student-3-int8", 9, "a3", quantised_from="student-3")
    return tmp_path


def made(house, version, day, adapter, **facts):
    folder = house / "students" / version
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(2**20))
    write_manifest(folder, adapter=adapter, created=f"2026-01-0{day}T00:00:00", dataset="d", parent=None, **facts)


def left(house):
    there = {path.name.removeprefix("student-") for path in (house / "students").iterdir()}
    return there, {path.name for path in (house / "adapters").iterdir()}


def gone(house, keep, *named):
    return collect(house / "students", house / "adapters", house / "bases", keep, {f"student-{one}" for one in named})


def test_students_are_listed_oldest_first_and_only_finished_ones(house):
    (house / "students" / "student-2" / MANIFEST).unlink()
    found = students(house / "students")
    assert [one.version.removeprefix("student-") for one in found] == ["1", "3", "4", "5", "6", "7", "8", "3-int8"]
    assert found[0].gib == pytest.approx(2**-10)
    assert (found[-1].quantised_from, found[-1].metrics) == ("student-3", None)


def test_the_oldest_beyond_the_number_kept_go_and_those_of_releases_stay(house):
    assert gone(house, 2, "1", "6") == ["student-2", "student-4", "student-5", "student-7"]
    assert left(house) == ({"1", "3", "3-int8", "6", "8"}, {"a1", "a3", "a6", "a8"})
    assert gone(house, 2, "1", "6") == []


def test_a_variant_goes_with_the_student_it_was_made_of_unless_a_release_names_it(house):
    assert "student-3-int8" not in gone(house, 0, "3-int8")
    assert left(house) == ({"3-int8"}, {"a3"})
    assert gone(house, 0) == ["student-3-int8"]
    assert left(house) == (set(), set())


def test_an_adapter_that_a_kept_students_adapter_began_from_stays(house):
    assert "student-4" in gone(house, 0, "5")
    assert left(house) == ({"5"}, {"a4", "a5"})


def test_enough_kept_removes_nothing_but_what_unfinished_attempts_left(house):
    (house / "students" / "student-half").mkdir()
    (house / "students" / "student-half" / "model.safetensors").write_bytes(b"half")
    (house / "students" / "notes").mkdir()
    assert gone(house, 8) == []
    assert left(house)[0] == {"1", "2", "3", "3-int8", "4", "5", "6", "7", "8", "notes"}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    base = tmp_path_factory.mktemp("base") / "student-base"
    shutil.copytree(recipe().base, base)
    card = base / "README.md"
    card.write_text("---\nlicense: apache-2.0\n---\n" + card.read_text())
    adapter = drawn_adapter(tmp_path_factory.mktemp("adapters") / "a0")
    root = tmp_path_factory.mktemp("students")
    return merge(SemanticRoles, recipe(base=str(base)), adapter, ["oat milk"], root, "student-served")[0]


def test_the_card_has_the_figures_as_hugging_face_reads_them(student):
    record_metrics(student, "n1", FIGURES, {"rows": 1234})
    write_json(
        student / "served.json", {"mean_difference": 0.001, "max_difference": 0.02, "tokens": 99, "same_answers": 1}
    )
    card = ModelCard.load(write_card(student, SemanticRoles))
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "transformers")
    assert not {"language", "base_model"} & card.data.to_dict().keys(), (
        "a language nobody named, a folder of this machine"
    )
    f1, p99 = card.data.eval_results
    assert (f1.metric_type, f1.metric_value, f1.dataset_name) == ("f1", 0.8861, "1,002 gold queries outside the head")
    assert f1.metric_args == {"interval_95": [0.871, 0.899]}
    assert (p99.metric_value, p99.metric_args) == (81.25, None)
    assert "| F1 | 0.8861 | 0.871 to 0.899 | 1,002 gold queries outside the head |" in card.text
    assert "| p99 | 81.25 ms |  | 200 requests, 8 at once |" in card.text
    assert "- rows: 1,234" in card.text
    assert "`student-served`" in card.text
    assert "What it must not be used for" in card.text
    assert str(student.parent) not in card.content
    assert "0.02 at most" in card.text


def test_a_card_before_any_measurement_claims_nothing(student, tmp_path):
    copy = tmp_path / student.name
    shutil.copytree(student, copy, ignore=shutil.ignore_patterns("metrics.json", "served.json"))
    card = ModelCard.load(write_card(copy, SemanticRoles))
    assert card.data.eval_results is None
    assert "Not measured yet." in card.text
    assert "Behind vLLM" not in card.text


def test_a_base_on_the_hub_is_named(student, tmp_path):
    copy = tmp_path / student.name
    shutil.copytree(student, copy)
    facts = read_manifest(copy)
    write_manifest(copy, **facts | {"recipe": facts["recipe"] | {"base": "meta-llama/Llama-3.1-8B-Instruct"}})
    card = ModelCard.load(write_card(copy, SemanticRoles))
    assert (card.data.base_model, card.data.base_model_relation) == ("meta-llama/Llama-3.1-8B-Instruct", "finetune")


def test_what_the_card_says_of_loading_it_is_so(student):
    from transformers import AutoTokenizer

    [code] = re.findall(r"```python\n(.*?)```", write_card(student, SemanticRoles).read_text(), re.S)
    assert "stillhouse" not in code
    assert not re.findall(r"import (?!AutoModelForCausalLM, AutoTokenizer)", code)
    before, said = os.getcwd(), {}
    os.chdir(student.parent)
    try:
        exec(code, said)
    finally:
        os.chdir(before)
    tokenizer = AutoTokenizer.from_pretrained(student)
    assert said["answer"] == tokenizer.decode(read_reference(student)[0]["greedy"], skip_special_tokens=True)


def test_only_a_finished_student_has_metrics(tmp_path):
    with pytest.raises(InputError, match=f"it has no {MANIFEST}"):
        record_metrics(tmp_path, "n1", FIGURES, {})


def test_a_pretrained_base_goes_when_no_student_of_it_is_left(house):
    for day, base in ((1, "b1"), (8, "b8")):
        write_manifest(house / "bases" / base)
        made = house / "students" / f"student-{day}"
        write_manifest(made, **(read_manifest(made) or {}) | {"recipe": {"base": str(house / "bases" / base)}})
    gone(house, 2)
    assert [base.name for base in (house / "bases").iterdir()] == ["b8"]
