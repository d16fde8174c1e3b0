"""Checkpoints: the last whole one, and what to say where the disk has no room for the next."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labels.errors import TrainingError

FULL = ("No space left", "Disk quota exceeded", "File too large", "PytorchStreamWriter failed", "inline_container.cc")
"""By these the errors of safetensors and torch.save are known, which have no number."""


def last_checkpoint(checkpoints: Path) -> str | None:
    """The newest whole checkpoint. A kill or a full disk may have left a newer half of one: its state comes last."""
    whole = [state.parent for state in checkpoints.glob("checkpoint-*/trainer_state.json") if _is_json(state)]
    return str(max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))) if whole else None


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


@contextmanager
def disk_of(folder: Path) -> Iterator[None]:
    """Says which disk is full, and what of the training is left. Each library has its own error for it."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and not any(sign in str(error) for sign in FULL):
            raise
        last = last_checkpoint(folder / "checkpoints")
        raise TrainingError(
            f"{folder} can't be written to, its disk is full ({error}); make room and run again: training goes on from "
            + (Path(last).name if last else "the start, for it had not come to a checkpoint")
        ) from error
