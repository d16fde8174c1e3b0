"""The demo's student base made ready for another task: the JSON between that task's values as tokens of their own.

    python -m demo.base_for demo.queryner_tasks:QueryNer FOLDER
    stillhouse train --task demo.queryner_tasks:QueryNer --set student.base=FOLDER …

The base copies words only where they have the same tokens in query and answer, which its tokenizer grants after an
added token alone, and one million parameters spend their little on spelling field names. A pretrained Llama needs none
of this. Nothing is trained here: a new token starts as the mean of those it stands for.
"""

import argparse
from pathlib import Path

from labels.errors import StillhouseError
from labels.files import fresh_folder
from labels.task import Task


def write_base(task: type[Task], base: str, folder: Path) -> int:
    """Write `base` with the scaffolding of `task` into `folder`; returns how many tokens were added."""
    import torch
    from tokenizers import AddedToken
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

    tokenizer = AutoTokenizer.from_pretrained(base)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, use_safetensors=True)
    known = tokenizer.get_vocab()
    pieces = [piece for piece in scaffolding(task) if piece not in known]
    spelt = [tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    weight = model.resize_token_embeddings(len(tokenizer), mean_resizing=False).weight
    with torch.no_grad():
        for piece, ids in zip(pieces, spelt, strict=True):
            weight[tokenizer.convert_tokens_to_ids(piece)] = weight[ids].mean(dim=0)
    fresh_folder(folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return len(pieces)


def scaffolding(task: type[Task]) -> list[str]:
    """Every constant piece that may stand between two values of the task's compact JSON, each once."""
    pieces: dict[str, None] = {}
    ends, last = ["{"], list(task.model_fields)[-1]
    for name in task.model_fields:
        several, closing = task.is_list(name), "}" if name == last else ""
        starts = [f'"{name}":["', f'"{name}":[]{closing}'] if several else [f'"{name}":"']
        pieces |= dict.fromkeys(end + start for end in ends for start in starts)
        pieces |= dict.fromkeys(['","'] if several else [])
        ends = ['"],', ","] if several else ['",']
    return [*pieces, '"]}' if task.is_list(last) else '"}']


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the demo's student base, made ready for a task of yours.")
    parser.add_argument("task", help="module:Class of a labels.task.Task")
    parser.add_argument("folder", type=Path, help="where the base goes; what is there is replaced")
    options = parser.parse_args()
    from flows.settings import load_settings

    try:
        settings = load_settings("laptop", {"task": options.task})
        task = settings.task_class()
        added = write_base(task, settings.student.base, options.folder)
    except StillhouseError as error:
        raise SystemExit(f"base_for: {error}") from None
    print(f"{added} tokens added for {task.name}: --set student.base={options.folder}")


if __name__ == "__main__":
    main()
