"""Quantised variants of a student: weights rounded by compressed-tensors, activations as they come, by the server.

No scheme needs data. fp8 and int8: weights are rounded to the nearest step of their output channel, activations to that of
their token (Dettmers et al. 2022, "LLM.int8()", NeurIPS; Micikevicius et al. 2022, "FP8 Formats for Deep Learning"). int4:
weights to that of their group of 128 in the channel, activations not at all (the groups of Frantar et al. 2023, "GPTQ",
ICLR, without its calibration). It is what llm-compressor's FP8_DYNAMIC, W8A8 and W4A16 do without data, whose own format
this is; plain transformers and plain vLLM load the folder.
"""

import math
import shutil
from pathlib import Path
from typing import Any, Literal

from labels.errors import InputError
from labels.files import MANIFEST, fresh_folder, read_manifest, write_manifest
from labels.records import now
from student.disk import as_os_error

Scheme = Literal["fp8", "int8", "int4"]
PRESETS = {"fp8": "FP8_DYNAMIC", "int8": "W8A8", "int4": "W4A16"}
KEPT = ("lm_head",)
"""Linear layers that stay as they are: the last one, often tied to the embeddings, decides between near words."""
FACTS = ("adapter", "began_from", "dataset", "parent", "recipe", "dtype", "parameters")
"""What a variant has from the student it is made of."""


def quantise(student: Path, scheme: Scheme) -> tuple[Path, bool]:
    """The folder of the student's variant, beside it, and whether it had to be made.

    Its manifest says how far the weights are off: `weight_error`, the largest layer's norm of the difference over the
    layer's norm. Raises InputError where `student` is not finished or is a variant itself.
    """
    made_from = read_manifest(student)
    if not made_from or "quantised_from" in made_from:
        raise InputError(f"{student} is no merged student; wanted the folder of one, with its {MANIFEST}")
    folder = student.with_name(f"{student.name}-{scheme}")
    if read_manifest(folder):
        return folder, False
    import torch
    from transformers import AutoModelForCausalLM

    fresh_folder(folder)
    for file in student.iterdir():  # the tokenizer, the chat template, what generation begins with
        if file.suffix in {".json", ".jinja", ".model"} and file.name not in {MANIFEST, "metrics.json", "served.json"}:
            shutil.copyfile(file, folder / file.name)
    model = AutoModelForCausalLM.from_pretrained(
        student, dtype=getattr(torch, made_from["dtype"]), use_safetensors=True
    )
    with torch.no_grad(), as_os_error(folder):
        error = _compress(model, PRESETS[scheme], folder)
    facts = {name: made_from[name] for name in FACTS}
    write_manifest(
        folder, **facts, quantised_from=student.name, scheme=scheme, weight_error=round(error, 5), created=now()
    )
    return folder, True


def _compress(model: Any, preset: str, folder: Path) -> float:  # noqa: ANN401 - a PreTrainedModel
    """Quantise `model` in place and save it to `folder`; returns the largest relative error of a layer's weights."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationConfig,
        apply_quantization_config,
        preset_name_to_scheme,
    )
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams, is_module_quantized
    from torch.nn import Linear

    scheme = preset_name_to_scheme(preset, ["Linear"])
    if scheme.weights.group_size:  # it must divide each layer's inputs: the largest part of the preset's that does
        inputs = [layer.in_features for layer in model.modules() if isinstance(layer, Linear)]
        scheme.weights.group_size = math.gcd(scheme.weights.group_size, *inputs)
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=list(KEPT)))
    worst = 0.0
    for layer in model.modules():
        if is_module_quantized(layer):
            weight, how = layer.weight, layer.quantization_scheme.weights
            parts = weight.unflatten(1, (-1, how.group_size or weight.shape[1]))
            scale, zero = calculate_qparams(parts.amin(-1), parts.amax(-1), how)
            layer.weight_scale.copy_(scale)
            layer.weight_zero_point.copy_(zero)
            rounded = fake_quantize(weight, layer.weight_scale, layer.weight_zero_point, how)
            worst = max(worst, float((rounded - weight).float().norm() / weight.float().norm()))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))
    return worst
