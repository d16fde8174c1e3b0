from pathlib import Path

import pytest

from labels.errors import SettingsError, TrainingError
from labels.files import read_manifest
from labels.semantic_roles import SemanticRoles
from student.history import read_history
from student.job import train_by_accelerate
from student.train import adapter_folder
from tests.student.training import recipe, shop_dataset, train

CONFIG = """\
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
num_machines: 1
num_processes: 2
mixed_precision: 'no'
main_process_port: 0
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "accelerate.yaml"
    file.write_text(CONFIG)
    return file


def test_two_processes_train_what_one_does_with_twice_the_batch(config, tmp_path):
    dataset, steps = shop_dataset(tmp_path, 64), []
    halves = recipe(5, batch=8)
    folder, made = train_by_accelerate(config, SemanticRoles, halves, dataset, tmp_path / "two", steps.append)
    assert made
    assert folder == adapter_folder(halves, dataset, tmp_path / "two")
    assert read_manifest(folder)["processes"] == 2
    assert [step.step for step in steps] == [10, 20], "one of them reports"
    whole, _ = train(dataset, tmp_path / "one", 5, batch=16)
    two, one = ([line["loss"] for line in read_history(each)] for each in (folder, whole))
    # The same rows a step, in another order: about the same curve.
    assert two == pytest.approx(one, rel=0.1)
    assert train_by_accelerate(config, SemanticRoles, halves, dataset, tmp_path / "two", steps.append) == (
        folder,
        False,
    )


def test_what_stops_a_process_stops_the_training_with_its_own_error(config, tmp_path):
    config.write_text(CONFIG.replace("MULTI_GPU", "'NO'").replace("num_processes: 2", "num_processes: 1"))
    dataset = shop_dataset(tmp_path, 16)
    checkpoint = adapter_folder(recipe(), dataset, tmp_path) / "checkpoints" / "checkpoint-10"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    with pytest.raises(TrainingError, match="holds a checkpoint of another configuration"):
        train_by_accelerate(config, SemanticRoles, recipe(), dataset, tmp_path, print)


def test_a_configuration_that_is_none_is_refused(tmp_path):
    dataset = shop_dataset(tmp_path, 16)
    with pytest.raises(SettingsError, match="no file nowhere"):
        train_by_accelerate(Path("nowhere"), SemanticRoles, recipe(), dataset, tmp_path, print)
    broken = tmp_path / "broken.yaml"
    broken.write_text("distributed_type: [")
    with pytest.raises(TrainingError, match=r"ended with \d+ and no adapter: (?s:.*)yaml"):
        train_by_accelerate(broken, SemanticRoles, recipe(), dataset, tmp_path, print)
