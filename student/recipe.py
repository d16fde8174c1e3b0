"""How a student is made: the recipe of its first training, and what training says while it goes."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from labels.models import model_identity

Order = Literal["shuffled", "easy_to_hard"]


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained; everything here is part of its identity.

    `batch` rows a device and step, `accumulate` steps an update; `max_length` in tokens; `quantise_base`: the base in
    4-bit NF4 (QLoRA, Dettmers et al. 2023). `packing` puts several rows into one sequence, none seeing another;
    `share_prefix` computes the tokens that all rows of a batch begin with, the instruction, once a batch. `order`: rows
    by their difficulty, or shuffled anew each epoch.
    """

    base: str
    revision: str | None
    rank: int
    alpha: int
    target_modules: str | list[str]
    modules_to_save: list[str] | None
    learning_rate: float
    epochs: int
    batch: int
    accumulate: int
    max_length: int
    dtype: str
    quantise_base: bool
    gradient_checkpointing: bool
    packing: bool
    share_prefix: bool
    order: Order
    seed: int

    def identity(self) -> dict[str, Any]:
        """What folders are named by: all of it, with what the base is in place of where it lies."""
        return asdict(self) | {"base": model_identity(self.base, self.revision), "revision": None}


@dataclass(frozen=True)
class Step:
    """Where training stands: `step` of `steps`, the loss (nats a token with loss), and tokens of the batch a second."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float


Progress = Callable[[Step], None]
