"""From a dataset to a merged student: training, what may follow it, the merge. Each is skipped where it is there already."""

from dataclasses import fields
from pathlib import Path

from flows.night import Night
from flows.second_steps import after_training
from flows.shown import shown
from labels.files import digest, read_manifest
from student.dataset import read_dataset
from student.job import train_by_accelerate
from student.merge import merge
from student.recipe import Recipe
from student.train import adapter_folder, train_adapter

PARITY_QUERIES = 64


def recipe_of(night: Night) -> Recipe:
    """The training recipe the settings describe."""
    s = night.settings.student
    same = {field.name: getattr(s, field.name) for field in fields(Recipe) if field.name != "seed"}
    return Recipe(**same, seed=night.settings.seed)


def fit(night: Night, recipe: Recipe, dataset: Path, parent: str | None) -> Path:
    """The folder of the merged student that `recipe` makes of a finished dataset. `parent`: the student served now."""
    adapters, config = night.work / "adapters", night.settings.student.accelerate
    adapter = adapter_folder(recipe, dataset, adapters)
    if trained := not read_manifest(adapter):
        with shown(night, "training the student (LoRA)") as progress:
            if config:
                train_by_accelerate(Path(config), night.task, recipe, dataset, adapters, progress)
            else:
                train_adapter(night.task, recipe, dataset, adapters, progress)
    adapter = after_training(night, recipe, adapter, dataset)
    queries = sorted((row.query for row in read_dataset(dataset)), key=lambda query: digest("parity", query))
    tokens = night.settings.student.max_tokens
    students = night.work / "students"
    with night.screen.waiting("merging"):
        model, merged = merge(night.task, recipe, adapter, queries[:PARITY_QUERIES], students, parent, tokens)
    parity = (read_manifest(model) or {})["parity"]
    difference = f"max logit difference {parity['max_logit_difference']:.1g}"
    night.screen.say(
        f"  {'trained' if trained else 'nothing to train: the adapter is there'}; "
        f"{'merged' if merged else 'merged before'}, {difference} → {model.name}"
    )
    return model


def quiet_libraries() -> None:
    """Our own progress is enough."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
