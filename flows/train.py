"""Stage: the student. Dataset, LoRA, merge; each is skipped where it is there already."""

import math
import os
from dataclasses import fields
from pathlib import Path

from threadpoolctl import threadpool_limits

from flows.night import Night
from flows.people import answers_of, held_out
from labels.files import read_manifest
from student.dataset import build_dataset, read_dataset
from student.merge import merge
from student.recipe import Recipe
from student.train import train_adapter

PARITY_QUERIES = 64


def train_student(night: Night) -> Path:
    """The folder of the merged student trained on the night's labels."""
    quiet_libraries()
    dataset = build_dataset(night.task, night.labels, answers_of(night), held_out(night), night.work / "datasets")
    left_out = f"{dataset.held_out:,} held-out gold and {dataset.near_gold:,} near it left out"
    people = f"{dataset.verified} verified and {dataset.corrected} of them corrected by people"
    night.screen.say(f"  {dataset.rows:,} rows ({people}; {left_out})")
    recipe = recipe_of(night)
    steps = math.ceil(dataset.rows / (recipe.batch * recipe.accumulate)) * recipe.epochs
    # Training has the machine to itself and takes every core, where all else here takes one. Not by
    # torch.set_num_threads, which vLLM's CPU build replaces by a function that does nothing.
    with (
        night.screen.bar("training the student (LoRA)", steps) as advance,
        threadpool_limits(os.cpu_count(), user_api="openmp"),
    ):
        done = 0

        def progress(step: int) -> None:
            nonlocal done
            advance(step - done)
            done = step

        adapter, trained = train_adapter(night.task, recipe, dataset.folder, night.work / "adapters", progress)
        progress(steps)
    queries = [row.query for row in read_dataset(dataset.folder)[:PARITY_QUERIES]]
    model, merged = merge(night.task, recipe, adapter, queries, night.work / "students")
    parity = (read_manifest(model) or {})["parity"]
    difference = f"max logit difference {parity['max_logit_difference']:.1g}"
    night.screen.say(
        f"  {'trained' if trained else 'nothing to train: the adapter is there'}; "
        f"{'merged' if merged else 'merged before'}, {difference} → {model.name}"
    )
    return model


def recipe_of(night: Night) -> Recipe:
    """The training recipe the settings describe."""
    s = night.settings.student
    same = {field.name: getattr(s, field.name) for field in fields(Recipe) if field.name != "seed"}
    return Recipe(**same, seed=night.settings.seed)


def quiet_libraries() -> None:
    """Our own progress bar is enough."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
