"""DPO: the student learns to prefer what people said to what the teacher had said, by TRL's `DPOTrainer`."""

import itertools
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from labels.errors import InputError, PreflightError
from labels.files import digest, read_manifest, write_manifest
from labels.prompt import messages
from labels.task import Task
from student.base import load_base
from student.checkpoints import disk_of
from student.preferences import Pair
from student.preflight import IGNORED, check_batches
from student.recipe import Progress, Recipe
from student.watch import arguments, one_device, run

PREFLIGHT_BATCHES = 4
MARGIN = "rewards/margins"
"""What TRL calls the mean of beta times how much more than the reference the student prefers chosen to rejected, in nats."""
NLL = 0.2
"""Weight of the chosen answers' negative log-likelihood beside DPO's own loss (Llama team 2024, arXiv:2407.21783, §4.1.4):
DPO alone lowers the likelihood of both answers, and the format goes with it."""
SAME = 0.1
"""Largest difference between the reference and the student as it starts, in nats an answer (measured: 0 in float32)."""


@dataclass(frozen=True)
class Preference:
    """How preferences are learnt: `beta` is how near to the first step's student it stays, `batch` pairs a step."""

    epochs: int
    beta: float
    learning_rate: float
    batch: int


def read_pairs(dataset: Path) -> list[Pair]:
    """The preference pairs of a finished dataset, one a query: the first it has."""
    rows = pq.read_table(dataset / "preferences.parquet").to_pylist()
    pairs = {row["query"]: (row["query"], row["chosen"], row["rejected"]) for row in reversed(rows)}
    return list(pairs.values())[::-1]


def preferred_folder(recipe: Recipe, preference: Preference, adapter: Path, dataset: Path, root: Path) -> Path:
    """Where the adapter trained further on these preferences lies, made or not."""
    return root / digest("dpo", NLL, recipe.identity(), asdict(preference), adapter.name, dataset.name)


def prefer(
    task: type[Task],
    recipe: Recipe,
    preference: Preference,
    adapter: Path,
    dataset: Path,
    root: Path,
    progress: Progress,
) -> tuple[Path, bool]:
    """The folder of `adapter` trained further on the preference pairs of `dataset`, and whether it had to be.

    (Rafailov et al. 2023, "Direct Preference Optimization", NeurIPS.) The reference is the student as `adapter` left
    it: TRL keeps a frozen copy of the adapter, and the pre-flight compares the two. Raises InputError where there is no
    pair, PreflightError where a batch or the reference is not what it must be, TrainingError where training diverges.
    """
    folder = preferred_folder(recipe, preference, adapter, dataset, root)
    if read_manifest(folder):
        return folder, False
    pairs = read_pairs(dataset)
    if not pairs:
        raise InputError(f"the dataset {dataset} holds no preference pair; wanted at least one correction by people")
    folder.mkdir(parents=True, exist_ok=True)
    trainer = dpo_trainer(task, recipe, preference, adapter, pairs, folder / "checkpoints")
    checked = _preflight(trainer, task, recipe, pairs)
    for copy in folder.glob("checkpoints/*/ref"):  # the trainer would load the reference alone, and not the student
        shutil.rmtree(copy)
    with disk_of(folder):
        run(trainer, "DPO", folder, progress)
        trainer.model.save_pretrained(folder, selected_adapters=["default"])  # and not the reference beside it
        trainer.processing_class.save_pretrained(folder)
        write_manifest(
            folder,
            kind="dpo",
            parent=adapter.name,
            recipe=asdict(recipe),
            preference=asdict(preference),
            dataset=dataset.name,
            pairs=len(pairs),
            preflight_rows=checked,
            margins=[(row["step"], row[MARGIN]) for row in trainer.state.log_history if MARGIN in row],
        )
        shutil.rmtree(folder / "checkpoints")
    return folder, True


def dpo_trainer(
    task: type[Task], recipe: Recipe, preference: Preference, adapter: Path, pairs: Sequence[Pair], checkpoints: Path
) -> Any:  # noqa: ANN401 - trl.DPOTrainer, imported here because it is heavy
    """The trainer, with the student on `adapter` and its frozen copy, the adapter `ref`, beside it."""
    from datasets import Dataset
    from peft import PeftModel
    from trl import DPOConfig, DPOTrainer

    base, tokenizer = load_base(recipe)
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
    data = Dataset.from_list(
        [
            {"prompt": messages(task, query), "chosen": _said(chosen), "rejected": _said(rejected)}
            for query, chosen, rejected in pairs
        ]
    )
    config = DPOConfig(
        **arguments(recipe, checkpoints),
        num_train_epochs=preference.epochs,
        per_device_train_batch_size=preference.batch,
        learning_rate=preference.learning_rate,
        beta=preference.beta,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, NLL],
        warmup_steps=0.1,
        save_strategy="epoch",
        max_length=None,  # nothing is cut; the pre-flight refuses what is too long
    )
    return DPOTrainer(model=model, args=one_device(config), train_dataset=data, processing_class=tokenizer)


def _said(value: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": value}]


def _preflight(trainer: Any, task: type[Task], recipe: Recipe, pairs: Sequence[Pair]) -> int:  # noqa: ANN401
    """How many answers were checked: chosen and rejected of real batches, as the server renders them (invariant 7)."""
    longest = max(
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in trainer.train_dataset
    )
    if longest > recipe.max_length:
        raise PreflightError(
            f"a preference pair takes {longest} tokens, max_length allows {recipe.max_length}; raise student.max_length"
        )
    batches = list(itertools.islice(iter(trainer.get_train_dataloader()), PREFLIGHT_BATCHES))
    check_reference(trainer, batches[0])
    return sum(
        check_batches(
            _half(batches, place), trainer.processing_class, task, {pair[0]: pair[1 + place] for pair in pairs}
        )
        for place in (0, 1)
    )


def _half(batches: Iterable[Mapping[str, Any]], place: int) -> list[dict[str, Any]]:
    """The chosen (0) or rejected (1) answers of DPO batches, as batches of completions with loss: TRL stacks the two."""
    halves = []
    for batch in batches:
        ids, mask, answer = (batch[name].chunk(2)[place] for name in ("input_ids", "attention_mask", "completion_mask"))
        halves.append({"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(answer == 0, IGNORED)})
    return halves


def check_reference(trainer: Any, batch: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Before the first step the reference must say what the student says, else the student is held to another model."""
    import torch

    model = trainer.model
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
    asked = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    model.eval()
    with torch.no_grad(), trainer.accelerator.autocast():
        student = model(**asked, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(1)
        reference = torch.cat(trainer.compute_ref_log_probs(model, batch))
    model.train()
    apart = float((student - reference).abs().max())
    if not apart <= SAME:
        raise PreflightError(
            f"DPO's reference is not the student it starts from: their answers differ by {apart:.2g} nats, allowed {SAME:g}"
        )
