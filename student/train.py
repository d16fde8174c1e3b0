"""Training: LoRA or QLoRA by TRL, loss on the answers alone, resumed from the last checkpoint after a kill."""

import itertools
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from labels.errors import TrainingError
from labels.files import digest, read_json, read_manifest, write_json, write_manifest
from labels.task import Task
from student.base import load_base
from student.checkpoints import disk_of, last_checkpoint
from student.dataset import read_dataset, read_replay_rows
from student.history import write_history
from student.preflight import IGNORED, check_rows, rows_of
from student.recipe import Progress, Recipe, Step
from student.sequences import Tokens, in_order, prompts_alone, tokens_of
from student.watch import one_device

PREFLIGHT_BATCHES = 4
SAVE_STEPS = 200
LOG_STEPS = 10
CONFIGURATION = "recipe.json"
"""What an unfinished folder's checkpoints were made by; the manifest says it of a finished one."""


def adapter_folder(recipe: Recipe, dataset: Path, root: Path) -> Path:
    """Where the adapter of this recipe on this dataset lies, made or not."""
    return root / digest(recipe.identity(), dataset.name)


def train_adapter(task: type[Task], recipe: Recipe, dataset: Path, root: Path, progress: Progress) -> tuple[Path, bool]:
    """The adapter's folder, and whether it had to be trained. `progress` gets every tenth step
    and the last.

    Under `accelerate launch` each process calls this, and the first one writes. Raises EngineError where the base can't
    be used, PreflightError where a batch is not what it must be, TrainingError where training can't go on; all leave
    the last checkpoint, from which the next call goes on.
    """
    folder = adapter_folder(recipe, dataset, root)
    if read_manifest(folder):
        return folder, False
    _same_configuration(folder, recipe, dataset)
    model, tokenizer = load_base(recipe)
    begun = perf_counter()
    rows, replay = read_dataset(dataset), read_replay_rows(dataset)
    ours, general = tokens_of(task, rows, replay, tokenizer, recipe.max_length)
    trainer = _trainer(recipe, model, tokenizer, in_order(rows, ours, general, recipe.order), folder / "checkpoints")
    if trainer.args.world_size != _processes():
        raise TrainingError(f"{_processes()} processes were started, and {trainer.args.world_size} train together")
    trainer.add_callback(_callback(progress))
    checked = _check(trainer, tokenizer, [*ours, *general])
    ready = perf_counter()
    with disk_of(folder):
        trainer.train(resume_from_checkpoint=last_checkpoint(folder / "checkpoints"))
        trainer.save_model(str(folder))
        if trainer.is_world_process_zero():
            logged = trainer.state.log_history
            write_history(folder, logged)
            (folder / "training_args.bin").unlink()  # a pickle
            write_manifest(
                folder,
                **_configuration(recipe, dataset) | {"recipe": asdict(recipe)},
                rows=len(rows),
                replay_rows=len(general),
                replay_rows_too_long=len(replay) - len(general),
                preflight_rows=checked,
                seconds={"prepare": round(ready - begun, 3), "train": round(perf_counter() - ready, 3)},
            )
            shutil.rmtree(folder / "checkpoints")
    trainer.accelerator.wait_for_everyone()
    return folder, True


def _configuration(recipe: Recipe, dataset: Path) -> dict[str, Any]:
    """What a checkpoint belongs to. More processes make an update of more rows: that is another training."""
    return {"recipe": recipe.identity(), "dataset": dataset.name, "processes": _processes()}


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _same_configuration(folder: Path, recipe: Recipe, dataset: Path) -> None:
    """Raises TrainingError where `folder` holds checkpoints of another configuration than this one."""
    wanted, found = _configuration(recipe, dataset), read_json(folder / CONFIGURATION)
    if last_checkpoint(folder / "checkpoints") and found != wanted:
        differs = [name for name in wanted if (found or {}).get(name) != wanted[name]]
        raise TrainingError(
            f"{folder} holds a checkpoint of another configuration (its {' and '.join(differs)} differ), from which this "
            "training can't go on; remove that folder to train from the start"
        )
    if found != wanted and os.environ.get("RANK", "0") == "0":
        write_json(folder / CONFIGURATION, wanted)


def _check(trainer: Any, tokenizer: Any, rows: Sequence[Tokens]) -> int:  # noqa: ANN401
    """The pre-flight on the first batches as they are; how many of `rows` these hold."""
    batches = list(itertools.islice(iter(trainer.get_train_dataloader()), PREFLIGHT_BATCHES))
    first = {tuple(ids) for batch in batches for ids, _, _ in rows_of(batch)}
    expected = prompts_alone([row for row in rows if tuple(row.ids) in first], tokenizer)
    return check_rows(batches, tokenizer, expected)


def _trainer(recipe: Recipe, model: Any, tokenizer: Any, rows: Sequence[Tokens], checkpoints: Path) -> Any:  # noqa: ANN401
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig

    from student.prefix import StudentTrainer

    data = Dataset.from_dict(
        {
            "input_ids": [row.ids for row in rows],
            "labels": [[IGNORED] * row.prompt + row.ids[row.prompt :] for row in rows],
        }
    )
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=recipe.target_modules,
        modules_to_save=list(recipe.modules_to_save or ()) or None,  # PEFT adds to the list it is given
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
        max_length=recipe.max_length if recipe.packing else None,  # no row is longer: tokens_of saw to it
        packing=recipe.packing,
        packing_strategy="bfd",
        train_sampling_strategy="sequential" if recipe.order == "easy_to_hard" else "random",
        use_cpu=not torch.accelerator.is_available(),  # unset, several processes without a GPU train one by one
        bf16=recipe.dtype == "bfloat16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        save_strategy="steps",
        save_steps=_save_steps(recipe, len(rows)),
        save_total_limit=1,
        logging_steps=LOG_STEPS,
        logging_nan_inf_filter=False,  # it would log a NaN as the last good loss, and go on
        disable_tqdm=True,
        report_to="none",
        seed=recipe.seed,
        data_seed=recipe.seed,
        dataloader_pin_memory=False,
        push_to_hub=False,
    )
    trainer = StudentTrainer(
        share_prefix=recipe.share_prefix,
        model=model,
        args=one_device(config),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=lora,
    )
    if recipe.quantise_base:  # TRL makes all that is trained bfloat16, whatever the rest computes in
        for weight in filter(lambda each: each.requires_grad, trainer.model.parameters()):
            weight.data = weight.data.to(torch.bfloat16 if recipe.dtype == "bfloat16" else torch.float32)
    trainer.remove_callback(PrinterCallback)  # the losses are kept in the adapter's folder
    return trainer


def _save_steps(recipe: Recipe, rows: int) -> int:
    """Steps between checkpoints: about an epoch, fewer where it is long. Only logged steps: what the loss has summed up
    since the last one is not in a checkpoint, and a resumed curve would begin with too low a loss."""
    epoch = rows / (recipe.batch * recipe.accumulate)
    return min(SAVE_STEPS, math.ceil(epoch / LOG_STEPS) * LOG_STEPS)


def _callback(progress: Progress) -> Any:  # noqa: ANN401 - a transformers.TrainerCallback
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        """Passes the steps on: every tenth, and the last."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
            """The last step is logged too: a short training has no other."""
            control.should_log = control.should_log or state.global_step == state.max_steps

        def on_log(self, args: Any, state: Any, control: Any, **other: Any) -> None:  # noqa: ANN401
            """After every few steps, and once at the end with no loss."""
            logs = other["logs"]
            if "loss" in logs and state.is_world_process_zero:
                rate = logs["tokens_per_second"]
                progress(Step(state.global_step, state.max_steps, logs["loss"], logs["learning_rate"], rate))

    return Report()
