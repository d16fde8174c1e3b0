"""The model a student is made from, and its tokenizer."""

from typing import Any

from student.recipe import Recipe


def load_base(recipe: Recipe, dtype: str | None = None) -> tuple[Any, Any]:
    """The base model and its tokenizer; in 4-bit NF4 where the recipe quantises it (QLoRA)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    precision = getattr(torch, dtype or recipe.dtype)
    quantisation = None
    if recipe.quantise_base and dtype is None:
        quantisation = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=precision,
            bnb_4bit_use_double_quant=True,
        )
    model = AutoModelForCausalLM.from_pretrained(
        recipe.base, revision=recipe.revision, dtype=precision, quantization_config=quantisation, use_safetensors=True
    )
    tokenizer = AutoTokenizer.from_pretrained(recipe.base, revision=recipe.revision)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer
