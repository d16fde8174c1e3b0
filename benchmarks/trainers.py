"""One training in a process of its own: `python -m benchmarks.trainers ours|trl ROWS EPOCHS FOLDER` (0: the profile's).

Prints one JSON object: seconds of training and of preparation, tokens a second of the rows' content and of their labels.
"""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.teacher import laptop, night_of
from labels.files import read_manifest
from labels.records import Label
from labels.task import Task

if TYPE_CHECKING:
    from student.recipe import Recipe


def main(name: str, rows: int, epochs: int, work: Path) -> dict[str, Any]:
    """Build a dataset of `rows` rows of the invented shop, train on it, measure."""
    night = night_of(laptop(work))
    from demo.write import held_out
    from flows.fit import quiet_libraries, recipe_of
    from student.base import load_base
    from student.dataset import build_dataset, read_dataset
    from student.selection import Selection
    from student.sequences import tokens_of

    importlib.import_module("student.prefix")  # loads the libraries: not counted
    quiet_libraries()
    recipe = recipe_of(night)
    recipe = replace(recipe, epochs=epochs or recipe.epochs)
    answers = _answers(night.task, rows)
    gold = [query for query in answers if held_out(query)]
    labels = [_label(night.task, query, value) for query, value in answers.items()]
    begun = perf_counter()
    dataset = build_dataset(night.task, labels, [], gold, work / "datasets", selection=Selection(rows=rows))
    built = perf_counter() - begun
    train = _ours if name == "ours" else _trl
    found = train(night.task, recipe, dataset.folder, work)
    drawn = read_dataset(dataset.folder)
    tokens = tokens_of(night.task, drawn, [], load_base(recipe)[1], recipe.max_length)[0]
    content = sum(len(row.ids) for row in tokens) * recipe.epochs
    labelled = content - sum(row.prompt for row in tokens) * recipe.epochs
    return {
        "rows": len(drawn),
        "epochs": recipe.epochs,
        "content_tokens": content,
        "label_tokens": labelled,
        "content_tokens_per_s": content / found["training_s"],
        "label_tokens_per_s": labelled / found["training_s"],
        **{key: round(value, 3) for key, value in found.items()},
        "preparation_s": round(built + found.get("prepare_s", 0.0), 3),
        "dataset_s": round(built, 3),
    }


def _answers(task: type[Task], rows: int) -> dict[str, str]:
    from demo.shop import make_shop

    pool = make_shop(brands=600, products=12_000, queries=rows * 3 // 2).pool.to_pylist()
    return {row["query"]: task(**{field: row[field] for field in task.model_fields}).to_json() for row in pool}


def _label(task: type[Task], query: str, value: str) -> Label:
    return Label(
        identity=query, query=query, status="accepted", value=value, confidence=dict.fromkeys(task.model_fields, 0.9),
        reason="", raw=value, facts=(), task=task.name, task_version=task.version(), model="gold", prompt="", night="",
        tokens_in=0, tokens_out=0,
    )  # fmt: skip


def _ours(task: type[Task], recipe: "Recipe", dataset: Path, work: Path) -> dict[str, float]:
    from student.train import train_adapter

    folder, _ = train_adapter(task, recipe, dataset, work / "adapters", lambda _: None)
    seconds = (read_manifest(folder) or {})["seconds"]
    return {"prepare_s": seconds["prepare"], "training_s": seconds["train"]}


def _trl(task: type[Task], recipe: "Recipe", dataset: Path, work: Path) -> dict[str, float]:
    """The script that TRL's documentation shows, with the recipe's settings."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from labels.prompt import messages
    from student.base import load_base
    from student.dataset import read_dataset

    model, tokenizer = load_base(recipe)
    data = Dataset.from_list(
        [
            {"prompt": messages(task, row.query), "completion": [{"role": "assistant", "content": row.value}]}
            for row in read_dataset(dataset)
        ]
    )
    config = SFTConfig(
        output_dir=str(work / "trl"),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=10,
        max_length=recipe.max_length,
        bf16=recipe.dtype == "bfloat16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=10,
        disable_tqdm=True,
        report_to="none",
        seed=recipe.seed,
    )
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=recipe.target_modules,
        modules_to_save=recipe.modules_to_save,
        ensure_weight_tying=bool(recipe.modules_to_save),
    )
    trainer = SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer, peft_config=lora)
    begun = perf_counter()
    trainer.train()
    trainer.save_model()
    return {"training_s": perf_counter() - begun}


if __name__ == "__main__":
    name, rows, epochs, work = sys.argv[1:]
    print(json.dumps(main(name, int(rows), int(epochs), Path(work))))
