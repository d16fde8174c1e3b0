import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from labels.errors import InputError, PreflightError, TrainingError
from labels.files import MANIFEST, read_manifest
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from student.base import load_base
from student.dpo import Preference, check_reference, dpo_trainer, prefer, preferred_folder, read_pairs
from student.history import read_history
from student.merge import merge
from student.preferences import pair_table
from tests.student.adapters import drawn_adapter
from tests.student.second import cut_off, paired_dataset
from tests.student.training import recipe

PREFERENCE = Preference(epochs=2, beta=0.1, learning_rate=1e-3, batch=4)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return drawn_adapter(tmp_path_factory.mktemp("adapters") / "a0")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return paired_dataset(tmp_path_factory.mktemp("datasets"))


def run(adapter, dataset, root, preference=PREFERENCE, progress=lambda _: None, **other):
    return prefer(SemanticRoles, recipe(**other), preference, adapter, dataset, root, progress)


@pytest.fixture(scope="module")
def preferred(adapter, dataset, tmp_path_factory):
    steps = []
    folder, made = run(adapter, dataset, tmp_path_factory.mktemp("preferred"), progress=steps.append)
    assert made
    return folder, steps


def margins(adapter, pairs):
    """By how many nats the adapter, read from its folder, prefers each chosen answer to the rejected one."""
    import torch
    from peft import PeftModel

    base, tokenizer = load_base(recipe())
    model = PeftModel.from_pretrained(base, adapter).eval()

    def likelihood(query, value):
        prompt = tokenizer.apply_chat_template(
            messages(SemanticRoles, query), add_generation_prompt=True, return_dict=False
        )
        answer = [*tokenizer(value, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor([prompt + answer])
        with torch.inference_mode():
            said = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return float(said.gather(-1, torch.tensor(answer)[:, None]).sum())

    return [likelihood(query, chosen) - likelihood(query, rejected) for query, chosen, rejected in pairs]


def test_the_student_comes_to_prefer_what_people_said(preferred, adapter, dataset):
    pairs = read_pairs(dataset)[:8]
    before, after = margins(adapter, pairs), margins(preferred[0], pairs)
    assert all(new > old + 1 for new, old in zip(after, before, strict=True))


def test_the_student_starts_as_its_own_reference(preferred):
    folder, steps = preferred
    assert read_manifest(folder)["margins"][0] == [1, 0.0], "no margin over the reference before the first step"
    assert [step.step for step in steps] == list(range(1, steps[0].steps + 1))
    assert steps[-1].loss < steps[0].loss
    assert all(step.tokens_per_second > 0 for step in steps)
    assert len(read_history(folder)) == len(steps)


def test_a_reference_that_is_not_the_student_is_found_out(adapter, dataset, tmp_path):
    import torch

    trainer = dpo_trainer(SemanticRoles, recipe(), PREFERENCE, adapter, read_pairs(dataset), tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    check_reference(trainer, batch)
    with torch.no_grad():
        next(weight for name, weight in trainer.model.named_parameters() if "lora_B.ref" in name).add_(1.0)
    with pytest.raises(PreflightError, match="reference is not the student it starts from"):
        check_reference(trainer, batch)


def test_what_comes_of_it_is_an_adapter_like_any_other(preferred, adapter, dataset, tmp_path):
    from safetensors.torch import load_file

    folder, _ = preferred
    manifest = read_manifest(folder)
    assert (manifest["parent"], manifest["dataset"], manifest["pairs"]) == (adapter.name, dataset.name, 8)
    assert manifest["preflight_rows"] == 2 * 8
    assert manifest["margins"][-1][1] > 0 == manifest["margins"][0][1]
    assert (
        load_file(folder / "adapter_model.safetensors").keys()
        == load_file(adapter / "adapter_model.safetensors").keys()
    )
    assert not (folder / "ref").exists()
    assert not (folder / "checkpoints").exists()
    finished = (folder / MANIFEST).stat().st_mtime_ns
    assert finished == max(path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file())
    merged, _ = merge(SemanticRoles, recipe(), folder, ["oat milk", "verdant machine juice"], tmp_path)
    assert read_manifest(merged)["adapter"] == folder.name


def test_it_is_done_once_and_again_where_anything_is_different(preferred, adapter, dataset):
    folder, _ = preferred
    called = []
    assert run(adapter, dataset, folder.parent, progress=called.append) == (folder, False)
    assert not called
    others = [replace(PREFERENCE, beta=0.5), replace(PREFERENCE, epochs=1)]
    folders = {preferred_folder(recipe(), one, adapter, dataset, folder.parent) for one in [PREFERENCE, *others]}
    folders.add(preferred_folder(recipe(seed=1), PREFERENCE, adapter, dataset, folder.parent))
    folders.add(preferred_folder(recipe(), PREFERENCE, adapter.with_name("other"), dataset, folder.parent))
    folders.add(preferred_folder(recipe(), PREFERENCE, adapter, dataset.with_name("other"), folder.parent))
    assert len(folders) == 6


def test_a_run_cut_off_ends_as_if_it_had_not_been(preferred, adapter, dataset, tmp_path):
    import torch
    from safetensors.torch import load_file

    cut_off(lambda progress: run(adapter, dataset, tmp_path, progress=progress), after=3)
    [folder] = tmp_path.iterdir()
    assert folder.name == preferred[0].name
    assert read_manifest(folder) is None
    half = folder / "checkpoints" / "checkpoint-999"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_')
    steps = []
    assert run(adapter, dataset, tmp_path, progress=steps.append) == (folder, True)
    assert min(step.step for step in steps) > 2, "it started from the beginning"
    ours, theirs = (load_file(each / "adapter_model.safetensors") for each in (folder, preferred[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_loss_that_is_no_number_leaves_no_adapter(adapter, dataset, tmp_path):
    with pytest.raises(TrainingError, match=r"DPO diverged: .*; lower its learning_rate"):
        run(adapter, dataset, tmp_path, replace(PREFERENCE, learning_rate=1e30))
    assert not any(read_manifest(folder) for folder in tmp_path.iterdir())


def test_pairs_that_do_not_fit_are_refused_before_any_step(adapter, dataset, tmp_path):
    steps = []
    with pytest.raises(PreflightError, match=r"a preference pair takes \d+ tokens, max_length allows 45"):
        run(adapter, dataset, tmp_path, progress=steps.append, max_length=45)
    assert not steps


def test_without_pairs_there_is_nothing_to_prefer(adapter, dataset, tmp_path):
    empty = tmp_path / "empty"
    shutil.copytree(dataset, empty)
    pq.write_table(pair_table([]), empty / "preferences.parquet")
    with pytest.raises(InputError, match="holds no preference pair"):
        run(adapter, empty, tmp_path / "adapters")
    two = [("oat milk", "a", "b"), ("oat milk", "a", "c"), ("rye", "d", "e")]
    pq.write_table(pair_table(two), empty / "preferences.parquet")
    assert read_pairs(empty) == [two[0], two[2]], "one pair a query, the first"
