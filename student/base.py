"""The model a student is made from, and its tokenizer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from labels.errors import EngineError
from labels.models import model_identity
from student.recipe import Recipe

UNDATED = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
"""Put before a chat template that writes today's date (Llama 3.2's does): the prompt that was trained is then the prompt that
is served on any day. The date is that which Llama's templates fall back on."""


def load_base(recipe: Recipe, dtype: str | None = None) -> tuple[Any, Any]:
    """The base model and its tokenizer; in 4-bit NF4 where the recipe quantises it (QLoRA), unless `dtype` is given.

    Raises EngineError where there is no such model, it is no causal language model in safetensors, weights of it are
    missing, its tokenizer has no chat template, or tokens that it has no embeddings for.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model_identity(recipe.base, recipe.revision)  # what is no model folder at all has its own message
    precision = getattr(torch, dtype or recipe.dtype)
    quantisation = None
    if recipe.quantise_base and dtype is None:
        quantisation = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=precision,
            bnb_4bit_use_double_quant=True,
        )
    if recipe.quantise_base and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # 4-bit weights go to the current device at once
    with _loading(recipe.base):
        _check_architecture(recipe)
        tokenizer = load_tokenizer(recipe.base, recipe.revision)
        found: Any = AutoModelForCausalLM.from_pretrained(
            recipe.base,
            revision=recipe.revision,
            dtype=precision,
            quantization_config=quantisation,
            use_safetensors=True,
            trust_remote_code=False,  # unset, it asks at the terminal
            output_loading_info=True,
        )
    model, loaded = found
    if loaded["missing_keys"]:  # transformers would draw them by chance
        missing = sorted(loaded["missing_keys"])
        raise EngineError(f"the base {recipe.base} lacks {len(missing)} of its weights, first {missing[0]}")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise EngineError(
            f"the tokenizer of {recipe.base} has {len(tokenizer):,} tokens, its embeddings {rows:,} rows; they are not "
            "of one model"
        )
    return model, tokenizer


def load_tokenizer(base: str, revision: str | None) -> Any:  # noqa: ANN401 - any Hugging Face tokenizer
    """The tokenizer of a base, with a token to pad with and a chat template that says the same every day.

    Raises EngineError where there is none, or no chat template.
    """
    from transformers import AutoTokenizer

    with _loading(base):
        tokenizer = AutoTokenizer.from_pretrained(base, revision=revision, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise EngineError(
            f"the tokenizer of {base} has no chat template; wanted an instruction-tuned base, or a chat_template.jinja in "
            "its folder"
        )
    if "strftime_now" in tokenizer.chat_template:
        tokenizer.chat_template = UNDATED + tokenizer.chat_template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def _loading(base: str) -> Iterator[None]:
    """Says whose files can't be loaded. Each library has its own error for it."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EngineError(f"the base {base} can't be loaded: {type(error).__name__}: {error}") from error


def _check_architecture(recipe: Recipe) -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = AutoConfig.from_pretrained(recipe.base, revision=recipe.revision, trust_remote_code=False)
    named = config.architectures or ["an unnamed architecture"]
    causal = named[0] in set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if not causal or config.is_encoder_decoder or hasattr(config, "vision_config"):
        raise EngineError(
            f"the base {recipe.base} is {named[0]}; wanted a causal language model over text, such as LlamaForCausalLM"
        )
