"""What the training tests share: a dataset of the invented shop, a recipe for the shipped base, one training run.

As a program, `python -m tests.student.training DATASET ADAPTERS EPOCHS STEP` trains until it is beyond that step, and is
then killed, as by somebody else.
"""

import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from demo.shop import make_shop
from flows.settings import ROOT
from labels.files import write_manifest, write_parquet
from labels.semantic_roles import SemanticRoles
from student.recipe import Recipe
from student.replay import replay_table
from student.rows import Row
from student.train import train_adapter

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


def recipe(epochs=1, **other):
    given = {
        "base": str(ROOT / "demo/models/student-base"), "revision": None, "rank": 8, "alpha": 16,
        "target_modules": "all-linear", "modules_to_save": ["embed_tokens"], "learning_rate": 4e-3, "epochs": epochs,
        "batch": 16, "accumulate": 1, "max_length": 512, "dtype": "float32", "quantise_base": False,
        "gradient_checkpointing": False, "packing": False, "share_prefix": True, "order": "shuffled", "seed": 0,
    }  # fmt: skip
    return Recipe(**given | other)


def shop_rows(rows):
    """The invented shop's queries with their gold answers."""
    pool = make_shop(brands=20, products=120, queries=rows).pool.to_pylist()
    return [
        Row(row["query"], SemanticRoles(**{name: row[name] for name in SemanticRoles.model_fields}).to_json())
        for row in pool
    ]


def shop_dataset(root, rows=150, replay=()):
    """A finished dataset of `rows` (a number of the shop's, or the rows), by hand: none is left out."""
    rows = shop_rows(rows) if isinstance(rows, int) else rows
    write_parquet(root / "shop" / "train.parquet", pa.Table.from_pylist([asdict(row) for row in rows]))
    write_parquet(root / "shop" / "replay.parquet", replay_table(replay))
    write_manifest(root / "shop", rows=len(rows))
    return root / "shop"


def train(dataset, root, epochs=1, progress=lambda _: None, **other):
    return train_adapter(SemanticRoles, recipe(epochs, **other), dataset, root, progress)


if __name__ == "__main__":
    epochs, last = map(int, sys.argv[3:])
    train(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        epochs,
        lambda step: os.kill(os.getpid(), signal.SIGKILL) if step.step > last else None,
    )
