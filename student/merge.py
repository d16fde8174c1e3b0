"""The merge: the adapter folded into its base, in float32, then cast; kept only if it answers as the adapter did."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labels.errors import ParityError
from labels.files import digest, fresh_folder, read_manifest, write_manifest
from labels.prompt import messages
from labels.task import Task
from student.base import load_base
from student.recipe import Recipe

MERGE_BOUND = 1e-3
"""Largest |Δlogit| allowed between adapter and merged model, both float32 (measured: 3e-6)."""
SAME_ANSWERS = 0.99
"""Share of next tokens the saved model must choose as the adapter does, after the cast to the serving type."""


def merge(task: type[Task], recipe: Recipe, adapter: Path, queries: Sequence[str], root: Path) -> tuple[Path, bool]:
    """The merged model's folder (named by its adapter), and whether it had to be made.

    Parity is measured on `queries`, over every position of prompt and answer, and stored in the manifest. Raises
    ParityError, leaving no model, where it is out of bounds.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = root / f"student-{digest(adapter.name, recipe.dtype)}"
    if read_manifest(folder):
        return folder, False
    base, tokenizer = load_base(recipe, dtype="float32")
    tuned = PeftModel.from_pretrained(base, adapter).eval()
    batch = _batch(task, tokenizer, queries)
    with torch.inference_mode():
        before = tuned(**batch).logits
        try:
            merged = tuned.merge_and_unload(safe_merge=True)
        except ValueError as error:  # PEFT found a NaN or an infinity
            raise ParityError(
                f"the adapter {adapter} can't be merged: {error}; remove that folder to train again"
            ) from error
        after = merged(**batch).logits
    mask = batch["attention_mask"].bool()
    drift = float((before - after)[mask].abs().max())
    if not drift <= MERGE_BOUND:
        raise ParityError(
            f"the merged model's logits differ from its adapter's by {drift:.2g}, allowed {MERGE_BOUND:g}"
        )
    fresh_folder(folder)
    merged.to(getattr(torch, recipe.dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
    with torch.inference_mode():
        served = saved(**batch).logits
    same = float((served.argmax(-1) == before.argmax(-1))[mask].float().mean())
    if not same >= SAME_ANSWERS:
        raise ParityError(
            f"cast to {recipe.dtype} the student keeps {same:.1%} of next tokens, wanted {SAME_ANSWERS:.0%}"
        )
    write_manifest(
        folder,
        adapter=adapter.name,
        recipe=asdict(recipe),
        parity={
            "queries": len(queries),
            "max_logit_difference": drift,
            "bound": MERGE_BOUND,
            "cast_max_logit_difference": float((before - served)[mask].abs().max()),
            "cast_same_next_token": same,
        },
        parameters=sum(p.numel() for p in saved.parameters()),
    )
    return folder, True


def _batch(task: type[Task], tokenizer: Any, queries: Sequence[str]) -> Any:  # noqa: ANN401 - a BatchEncoding
    tokenizer.padding_side = "right"
    texts = [
        tokenizer.apply_chat_template(messages(task, query), tokenize=False, add_generation_prompt=True)
        for query in queries
    ]
    return tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False)
