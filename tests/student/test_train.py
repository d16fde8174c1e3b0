import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows.settings import ROOT
from labels.errors import EngineError, PreflightError
from labels.files import MANIFEST, read_manifest
from labels.models import model_identity
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from student.base import load_base
from student.dataset import read_dataset
from student.merge import merge
from student.train import adapter_folder
from tests.student.training import ENVIRONMENT, recipe, shop_dataset, train

ROWS = 150


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """As in the environment of conftest.py, where another test has loaded torch before that was set."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return shop_dataset(tmp_path_factory.mktemp("datasets"), ROWS)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """One adapter trained for one epoch by the real trainer, and the progress it reported."""
    progress = []
    folder, made = train(dataset, tmp_path_factory.mktemp("adapters"), progress=progress.append)
    assert made
    return folder, progress


@pytest.fixture(scope="module")
def queries(dataset):
    return [row.query for row in read_dataset(dataset)[:16]]


def losses(folder):
    return json.loads((folder / "losses.json").read_text())


def test_an_adapter_is_finished_by_its_manifest_which_says_what_made_it(trained, dataset):
    folder, _ = trained
    manifest = read_manifest(folder)
    assert (manifest["rows"], manifest["dataset"]) == (ROWS, dataset.name)
    assert manifest["recipe"]["rank"] == 8
    assert manifest["preflight_rows"] >= 48
    finished = (folder / MANIFEST).stat().st_mtime_ns
    assert finished == max(path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file())
    assert not [*folder.rglob("adapter_model*.bin"), *folder.rglob("pytorch_model*")], "weights are safetensors"
    assert load_file(folder / "adapter_model.safetensors")


def test_training_reports_the_steps_reached_and_records_the_losses(trained):
    folder, progress = trained
    steps = -(-ROWS // 16)
    assert progress == sorted(progress)
    assert progress[-1] == steps
    assert [step for step, _ in losses(folder)] == [steps]
    assert all(0 < loss < 20 for _, loss in losses(folder))


def test_a_second_call_trains_nothing(trained, dataset):
    folder, _ = trained
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    called = []
    assert train(dataset, folder.parent, progress=called.append) == (folder, False)
    assert not called
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_another_recipe_another_base_or_another_dataset_is_another_adapter(dataset, tmp_path):
    one = recipe()
    base = tmp_path / "base"
    shutil.copytree(one.base, base)
    (base / "generation_config.json").write_text("{}")
    others = [replace(one, rank=4), replace(one, seed=1), replace(one, base=str(base))]
    folders = {adapter_folder(each, dataset, tmp_path) for each in [one, *others]}
    folders.add(adapter_folder(one, dataset.with_name("other"), tmp_path))
    assert len(folders) == 5


def test_rows_too_long_for_max_length_fail_the_preflight_before_any_step(dataset, tmp_path):
    steps = []
    with pytest.raises(PreflightError, match=r"truncated|no loss at all|not what the server will render"):
        train(dataset, tmp_path, max_length=45, progress=steps.append)
    assert not steps
    assert not any(read_manifest(folder) for folder in tmp_path.iterdir())


@pytest.fixture(scope="module")
def merged(trained, queries, tmp_path_factory):
    folder, made = merge(SemanticRoles, recipe(), trained[0], queries, tmp_path_factory.mktemp("students"))
    assert made
    return folder


def test_the_merged_folder_alone_is_a_model_that_learnt_something(merged, dataset):
    rows = [(row.query, row.value) for row in read_dataset(dataset)[:64]]
    tokenizer = AutoTokenizer.from_pretrained(merged)

    def loss_of(model):
        total = 0.0
        for query, value in rows:
            prompt = tokenizer.apply_chat_template(
                messages(SemanticRoles, query), add_generation_prompt=True, return_dict=False
            )
            answer = tokenizer(value, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
            ids = torch.tensor([prompt + answer])
            labels = torch.tensor([[-100] * len(prompt) + answer])
            with torch.inference_mode():
                total += float(model(input_ids=ids, labels=labels).loss)
        return total / len(rows)

    student = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    base = load_base(recipe())[0].eval()
    assert loss_of(student) < 0.8 * loss_of(base)
    assert model_identity(str(merged)).startswith(merged.name)


def test_a_folder_without_weights_is_no_base(dataset, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(EngineError, match="holds no safetensors"):
        train(dataset, tmp_path, base=str(tmp_path / "empty"))
    with pytest.raises(EngineError, match="no model at"):
        train(dataset, tmp_path, base="./nowhere")


def test_a_training_killed_after_a_checkpoint_ends_as_if_it_had_not_been(dataset, tmp_path):
    epochs = 2
    whole, _ = train(dataset, tmp_path / "whole", epochs)
    folder = adapter_folder(recipe(epochs), dataset, tmp_path / "killed")
    command = [sys.executable, "-m", "tests.student.training", dataset, tmp_path / "killed", str(epochs)]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 120
    while not list(folder.glob("checkpoints/checkpoint-10/trainer_state.json")):
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_manifest(folder) is None
    assert not (folder / "losses.json").exists()
    # The same kill a moment later leaves half of the next checkpoint; it must not be resumed from.
    half = folder / "checkpoints" / "checkpoint-999"
    half.mkdir()
    (half / "adapter_config.json").write_text("{")
    steps = []
    again, made = train(dataset, tmp_path / "killed", epochs, progress=steps.append)
    assert made
    assert again == folder
    assert min(steps) > 10, "it started from the beginning"
    assert losses(again) == losses(whole)
    ours, theirs = (load_file(each / "adapter_model.safetensors") for each in (again, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
