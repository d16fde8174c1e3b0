"""The merge: the adapter folded into its base, in float32, then cast; kept only if it answers as the adapter did."""

import gc
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labels.errors import ParityError
from labels.files import digest, fresh_folder, read_manifest, write_manifest
from labels.records import now
from labels.task import Task
from student.base import load_base
from student.disk import as_os_error
from student.parity import BOUNDS
from student.recipe import Recipe
from student.reference import greedy, logits, prompts_of, write_reference

MERGE_BOUND = 1e-3
"""Largest |Δlogit| allowed between adapter and merged model, both float32 (measured: 3e-6)."""
SAME_TOKENS = 0.99
"""Share of next tokens the saved model must choose as the adapter does, after the cast to the serving type."""
SAME_ANSWERS = 0.95
"""Share of greedy answers that must be the adapter's: one near tie makes another answer, so these have more room."""
ADAPTER = "adapter"
LAYOUT = 2
"""What a student's folder holds; a change makes other folders, beside those that releases name."""


def merge(
    task: type[Task],
    recipe: Recipe,
    adapter: Path,
    queries: Sequence[str],
    root: Path,
    parent: str | None = None,
    max_tokens: int = 64,
) -> tuple[Path, bool]:
    """The merged model's folder (named by its adapter), and whether it had to be made.

    `parent`: the student that served when this one was made; `max_tokens`: an answer's length at most. Parity is measured
    on `queries`, over every position of prompt and answer and on the answers that both give by themselves, and stored in
    the manifest, with the bounds that the served model must keep. Raises ParityError, leaving no model, where it is out
    of bounds, and OSError where it can't be written.
    """
    folder = root / f"student-{digest(adapter.name, recipe.dtype, LAYOUT)}"
    if read_manifest(folder):
        return folder, False
    said, drift = _fold(task, recipe, adapter, queries, folder, max_tokens)
    cast, parameters = _weigh(recipe, queries, folder, said, max_tokens)
    _device()  # its server wants the memory next
    made_from = read_manifest(adapter) or {}
    write_manifest(
        folder,
        adapter=adapter.name,
        began_from=made_from.get("parent"),
        dataset=made_from.get("dataset"),
        parent=parent,
        recipe=asdict(recipe),
        dtype=recipe.dtype,
        parity={
            "queries": len(queries),
            "tokens": sum(map(len, said.sequences)),
            "max_logit_difference": drift,
            "bound": MERGE_BOUND,
            **cast,
            "served_bounds": asdict(BOUNDS[recipe.dtype]),
        },
        parameters=parameters,
        created=now(),
    )
    return folder, True


@dataclass(frozen=True)
class _Said:
    """Prompts, what the adapter answers by itself (token ids), and its logits over both."""

    prompts: list[list[int]]
    answers: list[list[int]]
    logits: list[Any]
    padding: int

    @property
    def sequences(self) -> list[list[int]]:
        return [prompt + answer for prompt, answer in zip(self.prompts, self.answers, strict=True)]


def _fold(
    task: type[Task], recipe: Recipe, adapter: Path, queries: Sequence[str], folder: Path, max_tokens: int
) -> tuple[_Said, float]:
    """Write the merged weights, cast, with tokenizer and adapter; what the adapter said, and how far the merge is from it."""
    import torch
    from peft import PeftModel

    base, tokenizer = load_base(recipe, dtype="float32")
    tuned = PeftModel.from_pretrained(base, adapter).to(_device()).eval()
    padding = tokenizer.pad_token_id
    prompts = prompts_of(task, tokenizer, queries)
    said = _Said(prompts, greedy(tuned, prompts, padding, max_tokens), [], padding)
    said.logits.extend(logits(tuned, said.sequences, padding))
    try:
        merged = tuned.merge_and_unload(safe_merge=True)
    except ValueError as error:  # PEFT found a NaN or an infinity
        raise ParityError(
            f"the adapter {adapter} can't be merged: {error}; remove that folder to train again"
        ) from error
    drift = _difference(said.logits, logits(merged, said.sequences, padding))
    if not drift <= MERGE_BOUND:
        raise ParityError(
            f"the merged model's logits differ from its adapter's by {drift:.2g}, allowed {MERGE_BOUND:g}"
        )
    fresh_folder(folder)
    with as_os_error(folder):
        merged.to("cpu", getattr(torch, recipe.dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _copy_adapter(adapter, folder / ADAPTER)
    return said, drift


def _weigh(
    recipe: Recipe, queries: Sequence[str], folder: Path, said: _Said, max_tokens: int
) -> tuple[dict[str, float], int]:
    """What the cast cost of what the adapter said, kept as the reference for servers; and the model's parameters."""
    import torch
    from transformers import AutoModelForCausalLM

    saved: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    saved = saved.to(_device()).eval()
    after = list(logits(saved, said.sequences, said.padding))
    spoken = greedy(saved, said.prompts, said.padding, max_tokens)
    same = _share(bool(here) for a, b in zip(said.logits, after, strict=True) for here in a.argmax(-1) == b.argmax(-1))
    same_answers = _share(a == b for a, b in zip(said.answers, spoken, strict=True))
    if not (same >= SAME_TOKENS and same_answers >= SAME_ANSWERS):
        raise ParityError(
            f"cast to {recipe.dtype} the student keeps {same:.1%} of next tokens, wanted {SAME_TOKENS:.0%}, and "
            f"{same_answers:.1%} of answers, wanted {SAME_ANSWERS:.0%}; set student.dtype to a wider type"
        )
    write_reference(folder, queries, said.prompts, said.answers, spoken, after)
    cast = {
        "cast_max_logit_difference": _difference(said.logits, after),
        "cast_same_next_token": same,
        "cast_same_answers": same_answers,
    }
    return cast, sum(p.numel() for p in saved.parameters())


def _device() -> str:
    """The accelerator, where there is one; what training held there is given back first."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    gc.collect()
    torch.cuda.empty_cache()
    return "cuda"


def _difference(ones: Sequence[Any], others: Iterator[Any] | Sequence[Any]) -> float:
    """The largest difference of two models' logits."""
    import torch

    return float(torch.stack([(one - other).abs().max() for one, other in zip(ones, others, strict=True)]).max())


def _share(alike: Iterator[bool]) -> float:
    found = list(alike)
    return sum(found) / len(found)


def _copy_adapter(adapter: Path, folder: Path) -> None:
    """The adapter as PEFT loads it, without its checkpoints and the pickled arguments beside it."""
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(adapter / name, folder / name)
