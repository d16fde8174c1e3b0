"""The trainer: TRL's `SFTTrainer` with a leaner loss of the same value and the same gradients.

Logits are made only where there is loss: an answer's tokens, not its prompt's. And with `share_prefix` a batch is laid out
as one sequence in which whatever several rows begin with, the instruction above all, stands once: each token attends to
the tokens of its own row, by a mask (tree attention, as in SpecInfer, Miao et al. 2024). Nothing is padded either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence
from trl import SFTTrainer

from labels.errors import PreflightError, TrainingError
from student.preflight import IGNORED

SAME_LOSS, SAME_LOSS_16 = 1e-4, 1e-2
"""How far the loss of a batch may lie from that of its rows alone, in nats a token; in float32 and in 16 bits."""

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """What the model is given, `places` among its tokens (batch and position as one) that predict, and their `targets`."""

    inputs: dict[str, Any]
    places: Tensor
    targets: Tensor


class StudentTrainer(SFTTrainer):  # type: ignore[misc] # mypy skips trl
    """Trains on a batch's labels; proves on its first batches that sharing and packing leave the loss as it is.

    Raises PreflightError where they do not, TrainingError as soon as a loss or a gradient is no finite number: before
    the weights move.
    """

    def __init__(self, *, share_prefix: bool, **given: Any) -> None:  # noqa: ANN401 - SFTTrainer's
        super().__init__(**given)
        self._share = share_prefix and self.model.config.get_text_config()._attn_implementation == "sdpa"
        self._proven = False
        self._places: Tensor | None = None
        self._logged: tuple[float, int] | None = None  # when, and after how many tokens
        # A hook is the one way that every causal model, wrapped by PEFT, DDP or FSDP, has to its last hidden states.
        self.model.get_output_embeddings().register_forward_pre_hook(self._only_predicting)

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - as SFTTrainer's
        """Mean negative log-likelihood of the labels, in nats a token; `num_items_in_batch`: how many an update has."""
        if return_outputs or self.aux_loss_enabled or "shift_labels" in inputs:  # experts, sequence parallelism: TRL's
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        together = shared(inputs, self.model.config.get_text_config().hidden_size) if self._share else None
        layout = together or as_it_is(inputs)
        # Several processes must make the same number of forward passes: they all prove on their first batch.
        alike = self._share and self.accelerator.num_processes > 1
        if not self._proven and (together or alike or "position_ids" in inputs):
            self._prove(model, layout, inputs)
        count = len(layout.targets) if num_items_in_batch is None else num_items_in_batch
        loss = self._sum(model, layout) / torch.as_tensor(count, device=layout.targets.device).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())  # DDP takes the mean of the processes
        tokens = (
            inputs["attention_mask"].sum()
            if "attention_mask" in inputs
            else layout.targets.new_tensor(inputs["input_ids"].numel())
        )
        self._total_train_tokens += int(self.accelerator.gather_for_metrics(tokens).sum()) // self._tp_size
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return loss

    def training_step(self, *given: Any, **named: Any) -> Tensor:  # noqa: ANN401 - SFTTrainer's
        """One batch, forwards and backwards."""
        self._logged = self._logged or (perf_counter(), 0)
        loss: Tensor = super().training_step(*given, **named)
        self._must_be_finite(loss, "loss")
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:  # noqa: ANN401 - what Trainer does just before a step
        norm = super()._clip_grad_norm(model)
        self._must_be_finite(torch.as_tensor(norm), "gradient")
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds tokens a second since the last logged step, and the seconds trained so far, kills and all."""
        if "loss" in logs and self._logged:
            (since, seen), now = self._logged, perf_counter()
            earlier = [row["seconds"] for row in self.state.log_history if "seconds" in row]
            logs["tokens_per_second"] = (self._total_train_tokens - seen) / (now - since)
            logs["seconds"] = (earlier[-1] if earlier else 0.0) + now - since
            self._logged = (now, self._total_train_tokens)
        super().log(logs, start_time)

    def create_model_card(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - TRL's
        """None: a card of nothing at each checkpoint. The student has its own."""

    def _only_predicting(self, _: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:  # noqa: ANN401
        return None if self._places is None else (given[0].flatten(0, 1)[self._places],)

    def _sum(self, model: Any, layout: Layout) -> Tensor:  # noqa: ANN401
        """The summed negative log-likelihood of the layout's targets."""
        self._places = layout.places
        try:
            logits = model(**layout.inputs, use_cache=False).logits
        finally:
            self._places = None
        return cross_entropy(logits.float(), layout.targets, reduction="sum")

    def _prove(self, model: Any, layout: Layout, batch: Batch) -> None:  # noqa: ANN401
        """Invariant 7 for what share_prefix and packing do: no row may see another."""
        alone = as_it_is(unpacked(batch, self._tokenizer.pad_token_id))
        model.eval()
        with torch.no_grad():
            got, wanted = (float(self._sum(model, each)) / max(len(each.targets), 1) for each in (layout, alone))
        model.train()
        allowed = (SAME_LOSS if self.model.dtype == torch.float32 else SAME_LOSS_16) * max(wanted, 1.0)
        if not abs(got - wanted) <= allowed:
            what = "packed" if "position_ids" in batch else "with a shared prefix"
            raise PreflightError(
                f"the loss of a batch {what} is {got:.6g}, that of its rows alone {wanted:.6g}; wanted them within "
                f"{allowed:.2g}: with this base, train with student.packing = false and student.share_prefix = false"
            )
        self._proven = True

    def _must_be_finite(self, value: Tensor, what: str) -> None:
        if not bool(torch.isfinite(value).all()):
            rate = self.state.log_history[-1]["learning_rate"] if self.state.log_history else 0.0
            rate = self.lr_scheduler.get_last_lr()[0] if self.lr_scheduler else rate
            raise TrainingError(
                f"the {what} at step {self.state.global_step + 1} is {float(value)}, at a learning rate of {rate:.2g}; "
                "nothing of that step was kept. Wanted a finite number: lower student.learning_rate, or look for a "
                "broken base"
            )


def as_it_is(batch: Batch) -> Layout:
    """The batch as the collator made it."""
    targets = pad(batch["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
    places = (targets != IGNORED).nonzero().flatten()
    return Layout({name: value for name, value in batch.items() if name != "labels"}, places, targets[places])


def shared(batch: Batch, width: int) -> Layout | None:
    """The padded batch as one sequence in which equal beginnings of rows stand once; None where that saves nothing.

    `width`: the model's hidden size.
    """
    ids, real = batch["input_ids"], batch["attention_mask"].bool()
    rows, length = ids.shape
    # first[r, p]: the first row that has the same tokens as row r up to position p. Only first rows are computed.
    marked = ids.masked_fill(~real, -1)
    first = ((marked[:, None] != marked[None]).cumsum(-1) == 0).int().argmax(1)
    kept = real & (first == torch.arange(rows, device=ids.device)[:, None])
    tokens = int(kept.sum())
    # Work by token: 24 width² in the layers' matrices, 4 width in attention for each token it may look at.
    if tokens * (6 * width + tokens) >= rows * length * (6 * width + length):
        return None
    row, place = kept.nonzero(as_tuple=True)
    sees = (first[row][:, place] == row) & (place <= place[:, None])
    where = torch.zeros_like(ids)  # of each token of the batch, its place in the sequence
    where[row, place] = torch.arange(tokens, device=ids.device)
    where = where.gather(0, first)
    targets = pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
    predicting = targets != IGNORED
    inputs = {"input_ids": ids[row, place][None], "attention_mask": sees[None, None], "position_ids": place[None]}
    return Layout(inputs, where[predicting], targets[predicting])


def unpacked(batch: Batch, filling: int) -> Batch:
    """The rows of a packed batch, padded at their right with the token `filling`; a padded batch as it is."""
    if "position_ids" not in batch:
        return batch
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    sizes = [end - start for start, end in zip(starts, [*starts[1:], batch["input_ids"].shape[1]], strict=True)]

    def rows(value: Tensor, filler: int) -> Tensor:
        padded: Tensor = pad_sequence(list(value[0].split(sizes)), batch_first=True, padding_value=filler)
        return padded

    ids, labels = batch["input_ids"], batch["labels"]
    return {"input_ids": rows(ids, filling), "labels": rows(labels, IGNORED), "attention_mask": rows(ids * 0 + 1, 0)}
