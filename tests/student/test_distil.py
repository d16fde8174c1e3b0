import shutil
from dataclasses import replace

import pytest

from flows.settings import ROOT
from labels.errors import EngineError, InputError, TrainingError
from labels.files import MANIFEST, read_manifest
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from student.base import load_base
from student.dataset import read_dataset
from student.distil import Distillation, distil
from student.merge import merge
from tests.student.adapters import drawn_adapter
from tests.student.second import cut_off
from tests.student.training import recipe, shop_dataset

TEACHER = str(ROOT / "demo/models/teacher")
DISTILLATION = Distillation(TEACHER, None, steps=5, learning_rate=4e-3, batch=2, max_tokens=8)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return drawn_adapter(tmp_path_factory.mktemp("adapters") / "a0")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return shop_dataset(tmp_path_factory.mktemp("datasets"))


def run(adapter, dataset, root, distillation=DISTILLATION, progress=lambda _: None):
    return distil(SemanticRoles, recipe(), distillation, adapter, dataset, root, progress)


@pytest.fixture(scope="module")
def distilled(adapter, dataset, tmp_path_factory):
    steps = []
    folder, made = run(adapter, dataset, tmp_path_factory.mktemp("distilled"), progress=steps.append)
    assert made
    return folder, steps


def divergence(adapter, dataset):
    """KL(student, teacher) in nats a token, the adapter read from its folder, on the answers of rows as they stand."""
    import torch
    from peft import PeftModel

    base, tokenizer = load_base(recipe())
    student = PeftModel.from_pretrained(base, adapter).eval()
    teacher, _ = load_base(recipe(base=TEACHER))
    apart = []
    for row in read_dataset(dataset)[:16]:
        prompt = tokenizer.apply_chat_template(
            messages(SemanticRoles, row.query), add_generation_prompt=True, return_dict=False
        )
        ids = torch.tensor([prompt + tokenizer(row.value, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            ours, theirs = (
                model(input_ids=ids).logits[0, len(prompt) - 1 :].log_softmax(-1) for model in (student, teacher.eval())
            )
        apart += (ours.exp() * (ours - theirs)).sum(-1).tolist()
    return sum(apart) / len(apart)


def test_the_student_comes_nearer_to_its_teacher(distilled, adapter, dataset):
    folder, steps = distilled
    assert [step.step for step in steps] == list(range(1, DISTILLATION.steps + 1))
    # So few steps go 1 to 5% of the way, whatever the seed; untrained it would be equal, the other way round more.
    assert divergence(folder, dataset) < divergence(adapter, dataset)


def test_what_comes_of_it_is_an_adapter_like_any_other(distilled, adapter, dataset, tmp_path):
    folder, _ = distilled
    manifest = read_manifest(folder)
    assert (manifest["parent"], manifest["dataset"], manifest["queries"]) == (adapter.name, dataset.name, 150)
    assert manifest["teacher"].startswith("teacher-")
    finished = (folder / MANIFEST).stat().st_mtime_ns
    assert finished == max(path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file())
    merged, _ = merge(SemanticRoles, recipe(), folder, ["oat milk", "verdant machine juice"], tmp_path)
    assert read_manifest(merged)["adapter"] == folder.name
    called = []
    assert run(adapter, dataset, folder.parent, progress=called.append) == (folder, False)
    assert not called


def test_a_run_cut_off_ends_as_if_it_had_not_been(distilled, adapter, dataset, tmp_path):
    import torch
    from safetensors.torch import load_file

    cut_off(lambda progress: run(adapter, dataset, tmp_path, progress=progress), after=2)
    steps = []
    folder, _ = run(adapter, dataset, tmp_path, progress=steps.append)
    assert min(step.step for step in steps) > 1, "it started from the beginning"
    ours, theirs = (load_file(each / "adapter_model.safetensors") for each in (folder, distilled[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_teacher_of_another_vocabulary_is_refused_by_name(adapter, dataset, tmp_path):
    from transformers import AutoTokenizer

    other = tmp_path / "other"
    shutil.copytree(TEACHER, other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["zork"])
    tokenizer.save_pretrained(other)
    wanted = r"student-base \(2,048 tokens\) and the distillation teacher .*other \(2,049 tokens\) differ in 1 entries"
    with pytest.raises(InputError, match=wanted):
        run(adapter, dataset, tmp_path / "adapters", replace(DISTILLATION, teacher=str(other)))
    assert not (tmp_path / "adapters").exists()


def test_a_teacher_that_is_not_there_is_refused_by_name(adapter, dataset, tmp_path):
    with pytest.raises(EngineError, match="the base nobody/nothing can't be loaded"):
        run(adapter, dataset, tmp_path / "adapters", replace(DISTILLATION, teacher="nobody/nothing"))
    assert not (tmp_path / "adapters").exists()


def test_a_loss_that_is_no_number_leaves_no_adapter(adapter, dataset, tmp_path):
    with pytest.raises(TrainingError, match="distillation diverged"):
        run(adapter, dataset, tmp_path, replace(DISTILLATION, learning_rate=1e30))
    assert not any(read_manifest(folder) for folder in tmp_path.iterdir())
