import json

import pytest

from labels.errors import InputError
from labels.files import MANIFEST, read_manifest, write_manifest
from labels.semantic_roles import SemanticRoles
from student.merge import merge
from student.quantise import FACTS, quantise
from student.reference import logits, read_reference
from tests.student.adapters import drawn_adapter
from tests.student.training import recipe

QUERIES = ["oat milk 1 l", "verdant machine juice", "thé glacé", "seak", "spice zephyr", "red grapes 500 g"]
BITS = {"fp8": 8, "int8": 8, "int4": 4}
ERRORS = {"fp8": (0.02, 0.03), "int8": (0.005, 0.012), "int4": (0.09, 0.16)}
"""Between which the relative error of weights rounded to the nearest lies: 3 bits of mantissa, 127 steps a side, or 7."""

SAME = {"fp8": 0.9, "int8": 0.9, "int4": 0.7}
"""The least share of next tokens that stay the same on a student trained on nothing, whose likeliest tokens are near ties."""


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    adapter = drawn_adapter(tmp_path_factory.mktemp("adapters") / "a0")
    return merge(SemanticRoles, recipe(), adapter, QUERIES, tmp_path_factory.mktemp("students"))[0]


@pytest.fixture(scope="module", params=["fp8", "int8", "int4"])
def variant(request, student):
    folder, made = quantise(student, request.param)
    assert made
    return folder


def test_a_variant_says_what_it_was_made_of_and_is_made_once(variant, student):
    made, whole = read_manifest(variant), read_manifest(student)
    assert variant == student.with_name(f"{student.name}-{made['scheme']}")
    assert made["quantised_from"] == student.name
    assert {name: made[name] for name in ("adapter", "dataset", "recipe", "parameters")} == {
        name: whole[name] for name in ("adapter", "dataset", "recipe", "parameters")
    }
    assert "parity" not in made, "its parity is not the student's"
    assert (variant / MANIFEST).stat().st_mtime_ns == max(path.stat().st_mtime_ns for path in variant.iterdir())
    assert quantise(student, made["scheme"]) == (variant, False)


def test_each_linear_layer_but_the_last_has_its_bits_a_weight(variant, student):
    import torch
    from safetensors.torch import load_file

    held, whole = load_file(variant / "model.safetensors"), load_file(student / "model.safetensors")
    linear = [name for name in whole if "proj" in name]
    assert len(linear) == 28
    bits = BITS[read_manifest(variant)["scheme"]]
    packed = [held.get(name, held.get(f"{name}_packed")) for name in linear]  # eight of 4 bits lie in an int32
    assert {one.nbytes * 8 / whole[name].numel() for one, name in zip(packed, linear, strict=True)} == {bits}
    assert all(torch.equal(held[name], weight) for name, weight in whole.items() if name not in linear)
    quantised = json.loads((variant / "config.json").read_text())["quantization_config"]
    assert (quantised["quant_method"], quantised["ignore"]) == ("compressed-tensors", ["lm_head"])


def test_plain_transformers_loads_it_with_weights_as_far_off_as_its_manifest_says(variant, student):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = load_file(student / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(variant, dtype=torch.float32)
    padding = AutoTokenizer.from_pretrained(variant).pad_token_id
    rows = read_reference(student)
    found = logits(model, [row["prompt"] + row["answer"] for row in rows], padding)
    same = [
        here
        for row, one in zip(rows, found, strict=True)
        for here in one[:-1].argmax(-1) == torch.tensor(row["likeliest"])
    ]
    made = read_manifest(variant)
    assert sum(same) / len(same) > SAME[made["scheme"]]
    found = model.state_dict()  # dequantised by the first forward pass
    errors = [float((found[name] - weight).norm() / weight.norm()) for name, weight in whole.items() if "proj" in name]
    low, high = ERRORS[made["scheme"]]
    assert low < max(errors) == pytest.approx(made["weight_error"], abs=1e-5)
    assert max(errors) < high


def test_a_variant_of_a_variant_or_of_nothing_is_refused(variant, tmp_path):
    for folder in (variant, tmp_path):
        with pytest.raises(InputError, match="is no merged student; wanted the folder of one"):
            quantise(folder, "int8")


def test_groups_divide_layers_that_128_does_not(student, tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    narrow = AutoModelForCausalLM.from_config(
        LlamaConfig(**json.loads((student / "config.json").read_text()) | {"hidden_size": 96, "intermediate_size": 160})
    )
    narrow.save_pretrained(tmp_path / "narrow")
    write_manifest(tmp_path / "narrow", **dict.fromkeys(FACTS) | {"dtype": "float32"})
    folder, _ = quantise(tmp_path / "narrow", "int4")
    [group] = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"].values()
    assert group["weights"]["group_size"] == 32
    AutoModelForCausalLM.from_pretrained(folder)
