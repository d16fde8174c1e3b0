import json
import shutil

import pytest

from labels.errors import EngineError
from student.base import load_base, load_tokenizer
from tests.student.training import recipe


def configured(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def weights(change):
    def changed(folder):
        from safetensors.torch import load_file, save_file

        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    return changed


def without(*names):
    def remove(folder):
        for name in names:
            (folder / name).unlink()

    return remove


def few_embeddings(folder):
    configured(vocab_size=100)(folder)
    weights(lambda held: {name: w[:100].contiguous() if len(w) == 2048 else w for name, w in held.items()})(folder)


BROKEN = {
    "encoder": (
        configured(architectures=["BertForMaskedLM"], model_type="bert"),
        "is BertForMaskedLM; wanted a causal",
    ),
    "encoder_decoder": (configured(architectures=["T5ForConditionalGeneration"], model_type="t5"), "is T5ForCond"),
    "vision": (
        configured(architectures=["Gemma3ForConditionalGeneration"], model_type="gemma3"),
        "is Gemma3ForConditionalGeneration; wanted a causal",
    ),
    "unknown": (configured(architectures=["MineForCausalLM"], model_type="mine"), "can't be loaded"),
    "its_own_code": (
        configured(model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}),
        "can't be loaded: .*trust_remote_code",
    ),
    "no_config": (without("config.json"), "can't be loaded"),
    "no_tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "can't be loaded"),
    "broken_tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "can't be loaded"),
    "no_chat_template": (without("chat_template.jinja"), "has no chat template"),
    "other_shapes": (configured(hidden_size=96), "can't be loaded"),
    "few_embeddings": (few_embeddings, "has 2,048 tokens, its embeddings 100 rows"),
    "half_the_weights": (
        weights(lambda held: {name: w for name, w in held.items() if "layers.2" not in name}),
        r"lacks 9 of its weights, first model\.layers\.2",
    ),
    "cut_file": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:9999]),
        "can't be loaded: SafetensorError",
    ),
    "no_safetensors": (without("model.safetensors"), "holds no safetensors"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_base_that_is_none_is_refused_and_says_why(tmp_path, broken):
    change, says = BROKEN[broken]
    folder = tmp_path / "base"
    shutil.copytree(recipe().base, folder)
    change(folder)
    with pytest.raises(EngineError, match=f"(?s){says}"):
        load_base(recipe(base=str(folder)))


@pytest.mark.parametrize("broken", ["no_tokenizer", "broken_tokenizer", "no_chat_template"])
def test_a_tokenizer_is_refused_as_its_base_is_without_loading_weights(tmp_path, broken):
    change, says = BROKEN[broken]
    folder = tmp_path / "base"
    shutil.copytree(recipe().base, folder)
    (folder / "model.safetensors").unlink()
    change(folder)
    with pytest.raises(EngineError, match=f"(?s){says}"):
        load_tokenizer(str(folder), None)


def test_a_base_that_is_not_there_is_refused():
    with pytest.raises(EngineError, match="no model at"):
        load_base(recipe(base="./nowhere"))
    with pytest.raises(EngineError, match="the base nobody/nothing can't be loaded"):
        load_base(recipe(base="nobody/nothing"))
    with pytest.raises(EngineError, match="the base nobody/nothing can't be loaded"):
        load_tokenizer("nobody/nothing", None)


def test_the_base_as_shipped_loads_with_a_token_to_pad_with():
    model, tokenizer = load_base(recipe())
    assert tokenizer.pad_token_id is not None
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)


def test_a_template_that_writes_todays_date_says_the_same_every_day_and_still_does_when_saved(tmp_path):
    from transformers import AutoTokenizer

    folder = tmp_path / "base"
    shutil.copytree(recipe().base, folder)
    template = folder / "chat_template.jinja"
    template.write_text('{{ strftime_now("%d %b %Y %f") }}' + template.read_text())  # %f: never the same twice
    tokenizer = load_tokenizer(str(folder), None)
    said = tokenizer.apply_chat_template([{"role": "user", "content": "oat milk"}], tokenize=False)
    assert said.startswith("26 Jul 2024<|begin_of_text|>")
    tokenizer.save_pretrained(tmp_path / "saved")  # as the merged student's is, which vLLM reads
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.apply_chat_template([{"role": "user", "content": "oat milk"}], tokenize=False) == said
