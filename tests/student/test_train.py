import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from flows.settings import ROOT
from labels.errors import EngineError, PreflightError, TrainingError
from labels.files import MANIFEST, read_json, read_manifest, write_json
from labels.models import model_identity
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from student.base import load_base
from student.dataset import read_dataset
from student.dpo import Preference, preferred_folder
from student.history import read_history
from student.merge import merge
from student.rows import Replay
from student.train import adapter_folder
from tests.student.training import ENVIRONMENT, recipe, shop_dataset, shop_rows, train

ROWS, EPOCHS, STEPS = 64, 5, 20
GENERAL = [
    Replay([{"role": "user", "content": "Name a bird."}], "a wren"),
    Replay([{"role": "user", "content": "Name a bird."}], "an owl"),
    Replay([{"role": "user", "content": "Tell me all of it. " * 200}], "no"),
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """As in the environment of conftest.py, where another test has loaded torch before that was set."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return shop_dataset(tmp_path_factory.mktemp("datasets"), ROWS)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """One adapter trained by the real trainer, and the progress it reported."""
    progress = []
    folder, made = train(dataset, tmp_path_factory.mktemp("adapters"), EPOCHS, progress=progress.append)
    assert made
    return folder, progress


@pytest.fixture(scope="module")
def queries(dataset):
    return [row.query for row in read_dataset(dataset)[:16]]


def curve(folder):
    """What of the curve does not depend on the machine."""
    return [
        tuple(line[name] for name in ("step", "loss", "learning_rate", "grad_norm")) for line in read_history(folder)
    ]


def test_an_adapter_is_finished_by_its_manifest_which_says_what_made_it(trained, dataset):
    from safetensors.torch import load_file

    folder, _ = trained
    manifest = read_manifest(folder)
    assert (manifest["rows"], manifest["dataset"], manifest["processes"]) == (ROWS, dataset.name, 1)
    assert manifest["recipe"]["rank"] == 8
    assert manifest["preflight_rows"] >= 48
    assert manifest["seconds"]["prepare"] > 0
    finished = (folder / MANIFEST).stat().st_mtime_ns
    assert finished == max(path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file())
    assert load_file(folder / "adapter_model.safetensors")
    pickles = [*folder.rglob("*.bin"), *folder.rglob("*.pt"), *folder.rglob("*.pth")]
    assert not pickles, "weights are safetensors, and no checkpoint is left"


def test_training_reports_the_steps_reached_and_keeps_its_curve(trained):
    folder, progress = trained
    lines = read_history(folder)
    assert [line["step"] for line in lines] == [step.step for step in progress] == [10, STEPS]
    assert [line["loss"] for line in lines] == [step.loss for step in progress]
    assert all(step.steps == STEPS and step.tokens_per_second > 0 for step in progress)
    assert 20 > lines[0]["loss"] > lines[1]["loss"] > 0
    assert lines[0]["learning_rate"] > lines[1]["learning_rate"] > 0
    assert 0 < lines[0]["seconds"] < lines[1]["seconds"]
    assert all(line["grad_norm"] > 0 for line in lines)


def test_a_second_call_trains_nothing(trained, dataset):
    folder, _ = trained
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    called = []
    assert train(dataset, folder.parent, EPOCHS, progress=called.append) == (folder, False)
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


def test_the_same_base_named_from_another_directory_makes_the_same_adapters(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    near, far = recipe(base="demo/models/student-base"), recipe()
    assert near.base != far.base
    assert adapter_folder(near, dataset, tmp_path) == adapter_folder(far, dataset, tmp_path)
    preference = Preference(1, 0.1, 1e-5, 16)
    first, second = (preferred_folder(one, preference, tmp_path, dataset, tmp_path) for one in (near, far))
    assert first == second


def test_rows_too_long_for_max_length_fail_the_preflight_before_any_step(dataset, tmp_path):
    steps = []
    with pytest.raises(PreflightError, match="60 of 64 training rows would be truncated"):
        train(dataset, tmp_path, max_length=45, progress=steps.append)
    assert not steps
    assert not [*tmp_path.rglob("checkpoint-*"), *tmp_path.rglob(MANIFEST)]


@pytest.fixture(scope="module")
def merged(trained, queries, tmp_path_factory):
    folder, made = merge(SemanticRoles, recipe(EPOCHS), trained[0], queries, tmp_path_factory.mktemp("students"))
    assert made
    return folder


def test_the_merged_folder_alone_is_a_model_that_learnt_something(merged, dataset):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

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


def test_rows_that_repeat_general_rows_and_packing_train_in_order_too(tmp_path):
    rows = [replace(row, times=1 + (place % 4 == 0), difficulty=place / 64) for place, row in enumerate(shop_rows(32))]
    dataset = shop_dataset(tmp_path, rows, GENERAL)
    steps, how = [], {"packing": True, "share_prefix": False, "order": "easy_to_hard", "batch": 1}
    folder, _ = train(dataset, tmp_path, 2, progress=steps.append, **how)
    assert steps[-1].step == steps[-1].steps, "the last step is always reported"
    manifest = read_manifest(folder)
    assert (manifest["rows"], manifest["replay_rows"], manifest["replay_rows_too_long"]) == (32, 2, 1)
    # 32 rows, 8 of them twice, and 2 general ones fill five or six sequences of 512 tokens: four of them were checked
    assert 25 < manifest["preflight_rows"] <= 42


def test_a_base_in_four_bits_trains_as_the_whole_one_does(trained, dataset, tmp_path):
    import torch
    from safetensors.torch import load_file

    whole, _ = trained
    base, _ = load_base(recipe(quantise_base=True))
    assert base.get_memory_footprint() < 0.5 * load_base(recipe())[0].get_memory_footprint()
    folder, _ = train(dataset, tmp_path, EPOCHS, quantise_base=True)
    four_bits, full = ([line["loss"] for line in read_history(each)] for each in (folder, whole))
    assert four_bits == pytest.approx(full, rel=0.1)
    assert {weight.dtype for weight in load_file(folder / "adapter_model.safetensors").values()} == {torch.float32}


def test_a_loss_that_is_no_number_ends_the_training_before_the_weights_move(dataset, tmp_path):
    steps = []
    with pytest.raises(TrainingError, match=r"(loss|gradient) at step \d is (nan|inf), at a learning rate of \de\+"):
        train(dataset, tmp_path, EPOCHS, learning_rate=1e30, progress=steps.append)
    assert not steps
    assert not [*tmp_path.rglob("checkpoint-*"), *tmp_path.rglob(MANIFEST)]


def test_a_full_disk_ends_the_training_and_its_checkpoint_serves_its_own_recipe_alone(dataset, tmp_path):
    folder = adapter_folder(recipe(EPOCHS), dataset, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step):
        if step.step > 10:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_700_000, limits[1]))  # no file may be larger

    try:
        with pytest.raises(TrainingError, match=r"its disk is full .* goes on from checkpoint-10"):
            train(dataset, tmp_path, EPOCHS, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_manifest(folder) is None
    changed = read_json(folder / "recipe.json")
    changed["recipe"]["rank"] = 4
    write_json(folder / "recipe.json", changed)
    with pytest.raises(TrainingError, match=r"a checkpoint of another configuration \(its recipe differ"):
        train(dataset, tmp_path, EPOCHS)


def test_a_training_killed_after_a_checkpoint_ends_as_if_it_had_not_been(trained, dataset, tmp_path):
    import torch
    from safetensors.torch import load_file

    whole, _ = trained
    folder = adapter_folder(recipe(EPOCHS), dataset, tmp_path)
    command = [sys.executable, "-m", "tests.student.training", dataset, tmp_path, str(EPOCHS), "10"]
    killed = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(folder.glob("checkpoints/checkpoint-10/trainer_state.json"))
    assert read_manifest(folder) is None
    # The same kill a moment later leaves half of the next checkpoint; it must not be resumed from.
    half = folder / "checkpoints" / "checkpoint-999"
    half.mkdir()
    (half / "adapter_config.json").write_text("{")
    (half / "trainer_state.json").write_text('{"epoch": 4.')
    steps = []
    again, made = train(dataset, tmp_path, EPOCHS, progress=steps.append)
    assert made
    assert again == folder
    assert min(step.step for step in steps) > 10, "it started from the beginning"
    assert curve(again) == curve(whole)
    ours, theirs = (load_file(each / "adapter_model.safetensors") for each in (again, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
