"""What benchmarks/gpu.py serves and trains: a Llama of random weights, an adapter for it, the two merged.

`python -m benchmarks.gpu_models make|train FOLDER SHAPE`: in a process that gives the GPU's memory back when it ends.
"""

import json
import statistics
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from flows.environment import prepare
from flows.section import ROOT
from flows.settings import load_settings
from labels.semantic_roles import SemanticRoles
from student.recipe import Recipe, Step

TOKENIZER = ROOT / "demo" / "models" / "student-base"
LLAMA_3_1 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072,
        "rope_parameters": LLAMA_3_1 | {"original_max_position_embeddings": 8192}, "rms_norm_eps": 1e-5,
    },
    "tiny": {
        "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 256, "vocab_size": 4096, "max_position_embeddings": 2048,
    },
}  # fmt: skip
QUERIES = {"8b": 20_000, "tiny": 400}


def make(folder: Path, shape: str) -> dict[str, Any]:
    """The base, an adapter of the production profile's rank, and the two merged, under `folder`; says the machine."""
    import torch
    import vllm
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer, recipe = AutoTokenizer.from_pretrained(TOKENIZER), production(folder)
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape], **tokens, dtype="bfloat16"))
    parameters = model.num_parameters()
    model.save_pretrained(folder / "base")
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=recipe.rank, lora_alpha=recipe.alpha, target_modules=recipe.target_modules
    )
    tuned: Any = get_peft_model(model, lora)
    tuned.save_pretrained(folder / "adapter")
    tuned.merge_and_unload().save_pretrained(folder / "merged")
    for name in ("base", "merged"):
        tokenizer.save_pretrained(folder / name)
    machine = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {"machine": machine, "vllm": vllm.__version__, "parameters": parameters, "rank": recipe.rank}


def train(folder: Path, shape: str) -> dict[str, Any]:
    """LoRA on the base as the production profile trains it, rows packed: tokens a second, the first ten steps left out."""
    from demo.shop import make_shop
    from flows.training import given_label
    from student.dataset import build_dataset
    from student.train import train_adapter

    recipe = replace(production(folder), packing=True, epochs=1)
    if shape == "tiny":
        recipe = replace(recipe, batch=1, accumulate=1, max_length=256)
    pool = make_shop(brands=600, products=12_000, queries=QUERIES[shape]).pool.to_pylist()
    answers = {row["query"]: SemanticRoles(**{name: row[name] for name in SemanticRoles.model_fields}) for row in pool}
    labels = [given_label(SemanticRoles, query, answer, "gold") for query, answer in answers.items()]
    dataset = build_dataset(SemanticRoles, labels, [], [], folder / "datasets", confidence=lambda _: 1.0)
    steps: list[Step] = []
    train_adapter(SemanticRoles, recipe, dataset.folder, folder / "adapters", steps.append)
    rate = statistics.median(step.tokens_per_second for step in steps[1:] or steps)
    sizes = {"train_batch": recipe.batch * recipe.accumulate, "train_max_length": recipe.max_length}
    return {"train_tokens_per_second": round(rate), "train_steps": steps[-1].steps, **sizes}


def production(folder: Path) -> Recipe:
    """The production profile's recipe, on the base under `folder`."""
    s = load_settings("production", environment={}).student
    same = {field.name: getattr(s, field.name) for field in fields(Recipe) if field.name != "seed"}
    return replace(Recipe(**same, seed=0), base=str(folder / "base"), revision=None)


if __name__ == "__main__":
    prepare(offline=True)
    print(json.dumps({"make": make, "train": train}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])), flush=True)
