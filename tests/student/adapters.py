"""An adapter for the shipped base that nobody trained: its weights are drawn, small enough that it still answers."""

from pathlib import Path

from labels.files import write_manifest
from student.base import load_base
from tests.student.training import recipe


def drawn_adapter(folder: Path, seed: int = 0, **facts: object) -> Path:
    """A finished adapter in `folder`; `facts` go into its manifest beside the dataset's name."""
    import torch
    from peft import LoraConfig, get_peft_model

    base, tokenizer = load_base(recipe(), dtype="float32")
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear", modules_to_save=["embed_tokens"],
        ensure_weight_tying=True,
    )  # fmt: skip
    tuned = get_peft_model(base, lora)
    torch.manual_seed(seed)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.005)
        elif "modules_to_save" in name:
            weight.data += 0.001 * torch.randn_like(weight)
    tuned.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "optimizer.pt").write_bytes(b"large")
    write_manifest(folder, dataset="d0", rows=150, **facts)
    return folder
