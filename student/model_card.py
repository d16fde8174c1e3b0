"""A student's model card in the Hugging Face format, from its manifest and what was measured of it."""

import json
import re
from pathlib import Path
from typing import Any

import jinja2

from labels.files import read_json, read_manifest, write_text
from labels.prompt import messages
from labels.task import Task
from student.parity import SERVED
from student.registry import METRICS, Figure, figures_of

CARD = "README.md"
EXAMPLE = "oat milk"


def write_card(folder: Path, task: type[Task]) -> Path:
    """Write README.md of a finished student; returns its path. All figures come from the files in `folder`."""
    made: dict[str, Any] = read_manifest(folder) or {}
    measured = read_json(folder / METRICS)
    figures = figures_of(measured)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - Markdown, and nothing in it comes from a log
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    body = environment.get_template("model_card.md.j2").render(
        {"scheme": None, "parity": None}
        | made
        | {
            "version": folder.name,
            "task": task.name,
            "base": _base_name(made["recipe"]["base"]),
            "night": measured["night"] if measured else None,
            "data": measured["data"] if measured else {},
            "figures": [_shown(one) for one in figures],
            "served": read_json(folder / SERVED),
            "messages": json.dumps(messages(task, EXAMPLE), ensure_ascii=False),
        }
    )
    path = folder / CARD
    write_text(path, f"---\n{_metadata(folder.name, task, made, figures)}\n---\n{body}")
    return path


def _metadata(version: str, task: type[Task], made: dict[str, Any], figures: list[Figure]) -> str:
    """The YAML that Hugging Face's Hub reads. The language is that of the shop's queries: nobody has said which."""
    from huggingface_hub import EvalResult, ModelCardData

    base = made["recipe"]["base"]
    results = [
        EvalResult(
            task_type="text-generation",
            task_name=task.name,
            dataset_type="private",
            dataset_name=one.on,
            metric_type=re.sub(r"\W+", "_", one.name.lower()),
            metric_name=one.name,
            metric_value=round(one.value, 4),
            metric_args={"interval_95": [round(one.low, 4), round(one.high or 0.0, 4)]}
            if one.low is not None
            else None,
        )
        for one in figures
    ]
    data = ModelCardData(
        base_model=base if _on_hub(base) else None,
        base_model_relation=("quantized" if "quantised_from" in made else "finetune") if _on_hub(base) else None,
        license=_license(base),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["stillhouse", "lora", "merged", task.name, *([made["scheme"]] if "scheme" in made else [])],
        model_name=version if results else None,
        eval_results=results or None,
    )
    text: str = data.to_yaml()
    return text


def _shown(figure: Figure) -> dict[str, str]:
    """A figure as the table shows it."""

    def say(value: float | None) -> str:
        return f"{value:.4g} {figure.unit}".strip() if value is not None else ""

    interval = f"{say(figure.low)} to {say(figure.high)}" if figure.low is not None else ""
    return {"name": figure.name, "value": say(figure.value), "interval": interval, "on": figure.on}


def _license(base: str) -> str | None:
    """What the base's own card says, where that is at hand."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    card = try_to_load_from_cache(base, CARD) if _on_hub(base) else str(Path(base) / CARD)
    if not isinstance(card, str) or not Path(card).is_file():
        return None
    text = Path(card).read_text(encoding="utf-8")
    found = getattr(ModelCard(text, ignore_metadata_errors=True).data, "license", None) if text[:3] == "---" else None
    return str(found) if found else None


def _on_hub(base: str) -> bool:
    return not Path(base).is_dir() and base.count("/") == 1


def _base_name(base: str) -> str:
    """A Hub name as a link; of a folder its name alone: a path says something of the machine."""
    return f"[{base}](https://huggingface.co/{base})" if _on_hub(base) else f"`{Path(base).name}`"
