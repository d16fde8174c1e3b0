"""LoRA training by TRL's `SFTTrainer`: completion-only loss, resumed from the last checkpoint after a kill."""

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labels.files import digest, read_manifest, write_manifest, write_text
from labels.models import model_identity
from labels.prompt import messages
from labels.task import Task
from student.base import load_base
from student.dataset import read_dataset
from student.preflight import check_batches
from student.recipe import Recipe

PREFLIGHT_BATCHES = 4


def adapter_folder(recipe: Recipe, dataset: Path, root: Path) -> Path:
    """Where the adapter of this recipe on this dataset lies, made or not."""
    return root / digest(asdict(recipe), model_identity(recipe.base, recipe.revision), dataset.name)


def train_adapter(
    task: type[Task], recipe: Recipe, dataset: Path, root: Path, progress: Callable[[int], None]
) -> tuple[Path, bool]:
    """The adapter's folder, and whether it had to be trained. `progress` gets the step reached.

    Raises PreflightError when a batch is not what it must be.
    """
    folder = adapter_folder(recipe, dataset, root)
    if read_manifest(folder):
        return folder, False
    folder.mkdir(parents=True, exist_ok=True)
    rows = {row.query: row.value for row in read_dataset(dataset)}
    trainer = _trainer(task, recipe, rows, folder / "checkpoints", progress)
    batches = itertools.islice(iter(trainer.get_train_dataloader()), PREFLIGHT_BATCHES)
    checked = check_batches(batches, trainer.processing_class, task, rows)
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder / "checkpoints"))
    trainer.save_model(str(folder))
    losses = [(row["step"], row["loss"]) for row in trainer.state.log_history if "loss" in row]
    write_text(folder / "losses.json", json.dumps(losses))
    write_manifest(folder, recipe=asdict(recipe), dataset=dataset.name, rows=len(rows), preflight_rows=checked)
    return folder, True


def _last_checkpoint(checkpoints: Path) -> str | None:
    """The newest whole checkpoint. A kill may have left a newer half of one: trainer_state.json is written last."""
    whole = [state.parent for state in checkpoints.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))) if whole else None


def _trainer(
    task: type[Task], recipe: Recipe, rows: dict[str, str], checkpoints: Path, progress: Callable[[int], None]
) -> Any:  # noqa: ANN401 - trl.SFTTrainer, imported here because it is heavy
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = load_base(recipe)
    data = Dataset.from_list(
        [
            {"prompt": messages(task, query), "completion": [{"role": "assistant", "content": value}]}
            for query, value in rows.items()
        ]
    )
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=recipe.target_modules,
        modules_to_save=recipe.modules_to_save,
        ensure_weight_tying=bool(recipe.modules_to_save),
    )
    config = SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulate,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=10,
        max_length=recipe.max_length,
        completion_only_loss=True,
        packing=False,
        bf16=recipe.dtype == "bfloat16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=10,
        disable_tqdm=True,
        report_to="none",
        seed=recipe.seed,
        data_seed=recipe.seed,
        dataloader_pin_memory=False,
        push_to_hub=False,
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[_callback(progress)],
    )
    trainer.remove_callback(PrinterCallback)  # the losses are kept in the adapter's folder
    return trainer


def _callback(progress: Callable[[int], None]) -> Any:  # noqa: ANN401 - a transformers.TrainerCallback
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        """Passes the step on."""

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
            """After every few steps."""
            progress(state.global_step)

    return Report()
