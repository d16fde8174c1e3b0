"""On-policy distillation: the student writes, a teacher of the same tokenizer weighs each of its tokens."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labels.errors import InputError
from labels.files import digest, read_manifest, write_manifest
from labels.models import model_identity
from labels.prompt import messages
from labels.task import Task
from student.base import load_base, load_tokenizer
from student.checkpoints import disk_of
from student.dataset import read_dataset
from student.recipe import Progress, Recipe
from student.watch import arguments, diverged, one_device, run

WHAT = "distillation"


@dataclass(frozen=True)
class Distillation:
    """How a teacher is imitated: `steps` of `batch` queries, of which the student writes up to `max_tokens` each."""

    teacher: str
    teacher_revision: str | None
    steps: int
    learning_rate: float
    batch: int
    max_tokens: int


def distil(
    task: type[Task],
    recipe: Recipe,
    distillation: Distillation,
    adapter: Path,
    dataset: Path,
    root: Path,
    progress: Progress,
) -> tuple[Path, bool]:
    """The folder of `adapter` trained further on what it writes itself to the dataset's queries, and whether it had to be.

    Each token the student samples is compared with the teacher's whole distribution there, by the reverse
    Kullback-Leibler divergence (Agarwal et al. 2024, "On-Policy Distillation of Language Models", ICLR; TRL's
    `DistillationTrainer`). The teacher reads the student's prompt, which shows no facts: one that owes its labels to the
    facts it was shown is a worse teacher here than the labels are, and may undo what they taught.

    Raises InputError where the two vocabularies differ, TrainingError where training diverges.
    """
    teacher = model_identity(distillation.teacher, distillation.teacher_revision)
    how = asdict(distillation) | {"teacher": teacher, "teacher_revision": None}
    folder = root / digest("distil", recipe.identity(), how, adapter.name, dataset.name)
    if read_manifest(folder):
        return folder, False
    check_vocabulary(recipe, distillation)
    folder.mkdir(parents=True, exist_ok=True)
    queries = sorted({row.query for row in read_dataset(dataset)})
    trainer = _trainer(task, recipe, distillation, adapter, queries, folder / "checkpoints")
    with disk_of(folder):
        try:
            run(trainer, WHAT, folder, progress)
        except RuntimeError as error:
            if "probability tensor" in str(error):  # nothing can be drawn from it; the loss would have been next
                raise diverged(WHAT, str(error)) from error
            raise
        trainer.model.save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
        write_manifest(
            folder,
            kind="distil",
            parent=adapter.name,
            recipe=asdict(recipe),
            distillation=asdict(distillation),
            teacher=teacher,
            dataset=dataset.name,
            queries=len(queries),
        )
        shutil.rmtree(folder / "checkpoints")
    return folder, True


def check_vocabulary(recipe: Recipe, distillation: Distillation) -> None:
    """Raise InputError, naming both models, where a token's number means another token to the teacher; EngineError where one
    has no tokenizer.
    """
    student: dict[str, int] = load_tokenizer(recipe.base, recipe.revision).get_vocab()
    teacher: dict[str, int] = load_tokenizer(distillation.teacher, distillation.teacher_revision).get_vocab()
    if student != teacher:
        differ = len(student.items() ^ teacher.items())
        raise InputError(
            f"the student's base {recipe.base} ({len(student):,} tokens) and the distillation teacher "
            f"{distillation.teacher} ({len(teacher):,} tokens) differ in {differ:,} entries of their vocabularies; wanted a "
            "teacher of the same family, or student.distil.steps = 0"
        )


def _trainer(
    task: type[Task],
    recipe: Recipe,
    distillation: Distillation,
    adapter: Path,
    queries: Sequence[str],
    checkpoints: Path,
) -> Any:  # noqa: ANN401 - trl.DistillationTrainer, imported here because it is heavy
    from datasets import Dataset
    from peft import PeftModel
    from trl import DistillationConfig, DistillationTrainer

    base, tokenizer = load_base(recipe)
    teacher, _ = load_base(
        replace(recipe, base=distillation.teacher, revision=distillation.teacher_revision), dtype=recipe.dtype
    )
    config = DistillationConfig(
        **arguments(recipe, checkpoints),
        max_steps=distillation.steps,
        per_device_train_batch_size=min(distillation.batch, len(queries)),
        learning_rate=distillation.learning_rate,
        warmup_steps=0.1,
        save_strategy="steps",
        save_steps=0.1,
        max_completion_length=distillation.max_tokens,
        beta=1.0,
    )
    return DistillationTrainer(
        model=PeftModel.from_pretrained(base, adapter, is_trainable=True),
        teacher_model=teacher,
        args=one_device(config),
        train_dataset=Dataset.from_list([{"prompt": messages(task, query)} for query in queries]),
        processing_class=tokenizer,
    )
