import json

import pytest

from demo.other_tasks import spelling_examples
from demo.shop import make_shop
from labels.errors import InputError
from labels.files import MANIFEST, read_manifest
from student.base import load_base
from student.pretrain import Pretraining, blocks_of, continue_pretraining, held_out, perplexity, read_general
from tests.student.second import cut_off
from tests.student.training import recipe

PRETRAINING = Pretraining(epochs=1, replay_share=1.0, learning_rate=2e-3, batch=2, block=64)


@pytest.fixture(scope="module")
def texts():
    catalogue = make_shop(brands=20, products=90, queries=20).catalogue.to_pylist()
    return sorted({row["title"].lower() for row in catalogue})


@pytest.fixture(scope="module")
def general():
    return sorted({typed for typed, _ in spelling_examples(200, seed=1)})


def run(texts, general, root, pretraining=PRETRAINING, progress=lambda _: None, **other):
    return continue_pretraining(recipe(**other), pretraining, texts, general, root, progress)


@pytest.fixture(scope="module")
def base(texts, general, tmp_path_factory):
    steps = []
    folder, made = run(texts, general, tmp_path_factory.mktemp("bases"), progress=steps.append)
    assert made
    return folder, steps


def test_the_base_reads_the_shop_better_and_says_what_it_forgot(base):
    manifest = read_manifest(base[0])
    assert manifest["shop_after"] < 0.8 * manifest["shop_before"]
    assert manifest["general_before"] > 1
    assert manifest["general_after"] > 1
    assert manifest["replay_tokens"] == manifest["tokens"] > 0


def test_the_figures_are_those_of_the_model_in_the_folder(base, texts):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = base
    tokenizer = AutoTokenizer.from_pretrained(folder)
    unseen = blocks_of(tokenizer, [text for text in texts if held_out(text)], PRETRAINING.block)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert perplexity(model, unseen) == pytest.approx(read_manifest(folder)["shop_after"], rel=1e-4)
    before, _ = load_base(recipe())
    assert perplexity(before, unseen) == pytest.approx(read_manifest(folder)["shop_before"], rel=1e-4)


def test_what_comes_of_it_is_a_base_like_any_other(base, texts, general):
    folder, steps = base
    model, tokenizer = load_base(recipe(base=str(folder)))
    assert tokenizer.chat_template
    assert sum(weight.numel() for weight in model.parameters()) > 1e6
    assert not (folder / "checkpoints").exists()
    finished = (folder / MANIFEST).stat().st_mtime_ns
    assert finished == max(path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file())
    assert steps[-1].step == steps[-1].steps
    called = []
    assert run(texts, general, folder.parent, progress=called.append) == (folder, False)
    assert not called


def test_a_run_cut_off_ends_as_if_it_had_not_been(base, texts, general, tmp_path):
    import torch
    from safetensors.torch import load_file

    last = base[1][-1].steps
    cut_off(lambda progress: run(texts, general, tmp_path, progress=progress), after=last // 2)
    steps = []
    folder, _ = run(texts, general, tmp_path, progress=steps.append)
    assert min(step.step for step in steps) > 1, "it started from the beginning"
    ours, theirs = (load_file(each / "model.safetensors") for each in (folder, base[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert read_manifest(folder) == read_manifest(base[0])


def test_one_text_in_twenty_measures():
    share = sum(held_out(f"text {number}") for number in range(4000)) / 4000
    assert 0.04 < share < 0.06


def test_a_special_token_that_a_title_spells_is_read_letter_by_letter():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(recipe().base)
    [block] = blocks_of(tokenizer, ["oat <|eot_id|> milk", "rye"], 64)
    assert block.count(tokenizer.eos_token_id) == 2
    assert block[-1] == tokenizer.eos_token_id
    assert "<|eot_id|> milk" in tokenizer.decode(block[: block.index(tokenizer.eos_token_id)])


def test_text_that_fills_no_block_is_refused(tmp_path):
    with pytest.raises(InputError, match="fills no block of 64 tokens"):
        run(["oat milk"], [], tmp_path)
    assert not list(tmp_path.iterdir())


def test_general_text_comes_from_a_file_as_much_as_is_wanted(tmp_path):
    file = tmp_path / "text.jsonl"
    rows = [{"text": "a" * 10}, {"text": " "}, {"text": None}, {"text": "b" * 10}, {"text": "c" * 10}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_general(str(file), 11) == ["a" * 10, "b" * 10]
    assert len(read_general(str(file), 1000)) == 3


def test_general_text_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"the general text .*missing\.jsonl: there is no such file"):
        read_general(str(tmp_path / "missing.jsonl"), 10)
    other = tmp_path / "other.jsonl"
    other.write_text('{"words": "a"}\n')
    with pytest.raises(InputError, match="has no column 'text'"):
        read_general(str(other), 10)
    with pytest.raises(InputError, match=r"'nobody/nothing' can't be read .* wanted a Parquet or JSON lines file"):
        read_general("nobody/nothing", 10)
