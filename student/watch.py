"""What the trainers of the second steps share: their arguments, their progress, and a loss that must stay a number."""

import math
import time
from pathlib import Path
from typing import Any

from labels.errors import TrainingError
from student.checkpoints import last_checkpoint
from student.history import write_history
from student.recipe import Progress, Recipe, Step

LOG_STEPS = 1
TOKENS = ("num_tokens", "num_input_tokens_seen")
"""What TRL's trainers and transformers' own call the tokens seen so far, in a line of their logs."""


def arguments(recipe: Recipe, checkpoints: Path) -> dict[str, Any]:
    """The `TrainingArguments` that every second step takes: how it runs, not what it learns."""
    return {
        "output_dir": str(checkpoints),
        "lr_scheduler_type": "linear",
        "bf16": recipe.dtype == "bfloat16",
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "save_total_limit": 1,
        "logging_steps": LOG_STEPS,
        "logging_nan_inf_filter": False,  # else a NaN is logged as the last good loss
        "disable_tqdm": True,
        "report_to": "none",
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "dataloader_pin_memory": False,
        "push_to_hub": False,
    }


def one_device(config: Any) -> Any:  # noqa: ANN401 - a transformers.TrainingArguments
    """The same for one GPU, however many there are: these trainers run in one process, which TRL refuses to spread."""
    config._n_gpu = min(config.n_gpu, 1)
    return config


def run(trainer: Any, what: str, folder: Path, progress: Progress) -> None:  # noqa: ANN401
    """Train from the last whole checkpoint in `folder` on, calling `progress`, and keep the curve there.

    Raises TrainingError where the loss or a weight stops being a number: nothing of such a run is to be kept.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # the curve is kept in the folder
    trainer.add_callback(_watch(what, progress))
    trainer.train(resume_from_checkpoint=last_checkpoint(folder / "checkpoints"))
    trained = ((name, weight) for name, weight in trainer.model.named_parameters() if weight.requires_grad)
    broken = next((name for name, weight in trained if not bool(weight.isfinite().all())), None)
    if broken:
        raise diverged(what, f"the weights {broken} are no numbers")
    logged = trainer.state.log_history
    write_history(folder, logged)


def _watch(what: str, progress: Progress) -> Any:  # noqa: ANN401 - a transformers.TrainerCallback
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        """Passes each logged step on, and stops where the loss is no number."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
            """The clock starts; after a kill so many tokens were seen already."""
            self.seen, self.at = float(state.num_input_tokens_seen), time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, **other: Any) -> None:  # noqa: ANN401
            """After every step."""
            logs = other["logs"]
            if "loss" not in logs:  # the summary at the end
                return
            if not math.isfinite(logs["loss"]):
                raise diverged(what, f"the loss is {logs['loss']} at step {state.global_step}")
            seen = next((float(logs[name]) for name in TOKENS if name in logs), 0.0)
            at = time.perf_counter()
            rate = max(seen - self.seen, 0.0) / (at - self.at)
            self.seen, self.at = seen, at
            progress(Step(state.global_step, state.max_steps, logs["loss"], logs["learning_rate"], rate))

    return Watch()


def diverged(what: str, why: str) -> TrainingError:
    """The error for a training whose numbers are none."""
    return TrainingError(f"{what} diverged: {why}; lower its learning_rate, or switch it off, and run the night again")
