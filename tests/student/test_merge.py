import shutil

import pytest
from safetensors.torch import load_file, save_file

from labels.errors import ParityError
from labels.files import MANIFEST, read_manifest
from labels.semantic_roles import SemanticRoles
from student.merge import MERGE_BOUND, SAME_ANSWERS, SAME_TOKENS, merge
from tests.student.adapters import drawn_adapter
from tests.student.training import recipe

QUERIES = ["oat milk 1 l", "verdant machine juice", "thé glacé", "seak", "spice zephyr", "red grapes 500 g"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return drawn_adapter(tmp_path_factory.mktemp("adapters") / "a0")


@pytest.fixture(scope="module")
def merged(adapter, tmp_path_factory):
    folder, made = merge(SemanticRoles, recipe(), adapter, QUERIES, tmp_path_factory.mktemp("students"))
    assert made
    return folder


def test_a_merged_model_states_its_parity_and_is_merged_once(merged, adapter):
    manifest = read_manifest(merged)
    assert manifest["adapter"] == adapter.name
    parity = manifest["parity"]
    assert parity["queries"] == len(QUERIES)
    assert 0 <= parity["max_logit_difference"] <= parity["bound"] == MERGE_BOUND
    assert parity["cast_same_next_token"] >= SAME_TOKENS
    assert manifest["parameters"] == sum(weight.numel() for weight in load_file(merged / "model.safetensors").values())
    assert merge(SemanticRoles, recipe(), adapter, QUERIES, merged.parent) == (merged, False)
    assert (merged / MANIFEST).stat().st_mtime_ns == max(path.stat().st_mtime_ns for path in merged.iterdir())


def tampered(adapter, root, change):
    """A copy of a finished adapter with its weights changed."""
    copy = root / "tampered"
    shutil.copytree(adapter, copy, ignore=shutil.ignore_patterns("checkpoints"))
    file = copy / "adapter_model.safetensors"
    save_file({name: change(name, weight).contiguous() for name, weight in load_file(file).items()}, file)
    return copy


def blown_up(name, weight):
    return weight * (100 if "lora_B" in name else 1 if "lora_A" in name else 1000)


def not_a_number(name, weight):
    return weight * float("nan") if "lora_B" in name else weight


@pytest.mark.parametrize(
    ("change", "says"), [(blown_up, "logits differ from its adapter's by"), (not_a_number, "can't be merged")]
)
def test_an_adapter_that_does_not_merge_exactly_leaves_no_student(adapter, tmp_path, change, says):
    with pytest.raises(ParityError, match=says):
        merge(SemanticRoles, recipe(), tampered(adapter, tmp_path, change), QUERIES, tmp_path / "students")
    assert not (tmp_path / "students").exists()
