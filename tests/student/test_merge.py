import resource
import shutil
from dataclasses import asdict

import pytest

from labels.errors import ParityError
from labels.files import MANIFEST, read_manifest, write_manifest
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from student.base import load_base
from student.merge import ADAPTER, MERGE_BOUND, SAME_ANSWERS, SAME_TOKENS, merge
from student.parity import BOUNDS
from student.reference import read_reference
from tests.student.adapters import drawn_adapter
from tests.student.training import recipe

QUERIES = ["oat milk 1 l", "verdant machine juice", "thé glacé", "seak", "spice zephyr", "red grapes 500 g"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return drawn_adapter(tmp_path_factory.mktemp("adapters") / "a0", parent="a-before")


@pytest.fixture(scope="module")
def merged(adapter, tmp_path_factory):
    root = tmp_path_factory.mktemp("students")
    folder, made = merge(SemanticRoles, recipe(), adapter, QUERIES, root, parent="student-served")
    assert made
    return folder


def test_a_merged_model_states_what_it_was_made_of_and_its_parity_and_is_merged_once(merged, adapter):
    from safetensors.torch import load_file

    manifest = read_manifest(merged)
    assert manifest["adapter"] == adapter.name
    assert (manifest["dataset"], manifest["began_from"], manifest["parent"]) == ("d0", "a-before", "student-served")
    assert (manifest["dtype"], manifest["recipe"]["rank"]) == ("float32", 8)
    parity = manifest["parity"]
    assert parity["queries"] == len(QUERIES)
    assert parity["tokens"] == sum(len(row["prompt"]) + len(row["answer"]) for row in read_reference(merged))
    assert 0 <= parity["max_logit_difference"] <= parity["bound"] == MERGE_BOUND
    assert parity["cast_same_next_token"] >= SAME_TOKENS
    assert parity["cast_same_answers"] >= SAME_ANSWERS
    assert parity["served_bounds"] == asdict(BOUNDS["float32"])
    assert manifest["parameters"] == sum(weight.numel() for weight in load_file(merged / "model.safetensors").values())
    assert merge(SemanticRoles, recipe(), adapter, QUERIES, merged.parent) == (merged, False)
    assert (merged / MANIFEST).stat().st_mtime_ns == max(path.stat().st_mtime_ns for path in merged.rglob("*"))


def test_the_adapter_goes_along_without_its_checkpoints_and_merges_to_the_same_weights(merged):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    files = {path.name for path in (merged / ADAPTER).iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    assert not [path for path in merged.rglob("*") if path.suffix in {".pt", ".pth", ".bin"}], "weights are safetensors"
    again = PeftModel.from_pretrained(load_base(recipe(), dtype="float32")[0], merged / ADAPTER).merge_and_unload()
    ours, saved = again.state_dict(), load_file(merged / "model.safetensors")
    assert all(torch.equal(ours[name], weight) for name, weight in saved.items())


def test_what_the_student_said_at_the_merge_is_what_transformers_says_of_it(merged):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(merged), AutoModelForCausalLM.from_pretrained(merged)
    for query, row in zip(QUERIES, read_reference(merged), strict=True):
        prompt = tokenizer.apply_chat_template(
            messages(SemanticRoles, query), add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        with torch.inference_mode():
            said = model.generate(prompt, do_sample=False, max_new_tokens=64)[0].tolist()
            chances = model(torch.tensor([said])).logits[0].log_softmax(-1)
        assert said == row["prompt"] + row["greedy"]
        assert row["answer"] == row["greedy"], "in float32 the adapter says the same"
        expected = [float(chances[place, token]) for place, token in enumerate(said[1:])]
        assert row["logprobs"] == pytest.approx(expected, abs=1e-3)
        assert row["likeliest"] == chances[:-1].argmax(-1).tolist()


def tampered(adapter, root, change):
    """A copy of a finished adapter with its weights changed."""
    from safetensors.torch import load_file, save_file

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


def test_a_student_that_its_serving_type_can_t_hold_is_refused(adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    shutil.copytree(recipe().base, base)
    weights = load_file(base / "model.safetensors")
    for name, weight in weights.items():  # the same function in float32; infinities and zeros in float16
        weights[name] = weight * 2.0**24 if "v_proj" in name else weight / 2.0**24 if "o_proj" in name else weight
    save_file({name: weight.float() for name, weight in weights.items()}, base / "model.safetensors", {"format": "pt"})
    wide = recipe(base=str(base), dtype="float16")
    with pytest.raises(ParityError, match=r"cast to float16 the student keeps .*of next tokens.*of answers"):
        merge(SemanticRoles, wide, adapter, QUERIES, tmp_path / "students")
    assert not list((tmp_path / "students").glob(f"*/{MANIFEST}"))


def test_a_full_disk_at_the_merge_leaves_no_student_and_the_last_one_as_it_was(adapter, tmp_path):
    from safetensors.torch import load_file

    last = tmp_path / "student-last"
    last.mkdir()
    (last / "model.safetensors").write_bytes(b"weights")
    write_manifest(last, adapter="a")
    before = {path: path.read_bytes() for path in last.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # a file may not be as large as the model's
    try:
        with pytest.raises(OSError, match="student-") as caught:
            merge(SemanticRoles, recipe(), adapter, QUERIES, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == 27
    assert [path.parent for path in tmp_path.glob(f"*/{MANIFEST}")] == [last]
    assert {path: path.read_bytes() for path in last.iterdir()} == before
    folder, made = merge(SemanticRoles, recipe(), adapter, QUERIES, tmp_path)
    assert made, "what the full disk left is no hindrance"
    assert load_file(folder / "model.safetensors")
