"""Continued pretraining: the base reads the shop's own text before it is trained, and general text against forgetting."""

import gc
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from labels.errors import InputError
from labels.files import digest, read_manifest, write_manifest
from labels.models import model_identity
from labels.tables import open_table, reading
from student.base import load_base
from student.checkpoints import disk_of
from student.recipe import Progress, Recipe
from student.watch import arguments, one_device, run

HELD_OUT = 20
"""One text in so many, by its hash, is never trained on and measures instead."""
MEASURED_BLOCKS = 256
"""Most blocks of held-out text a perplexity is taken on."""

Blocks = list[list[int]]


@dataclass(frozen=True)
class Pretraining:
    """How the base reads on: blocks of `block` tokens, `batch` a step; `replay_share` tokens of general text for each of
    the shop's; a tenth of the learning rate the base was made with.
    """

    epochs: int
    replay_share: float
    learning_rate: float
    batch: int
    block: int


def continue_pretraining(
    recipe: Recipe,
    pretraining: Pretraining,
    texts: Sequence[str],
    general: Sequence[str],
    root: Path,
    progress: Progress,
) -> tuple[Path, bool]:
    """The folder of a new base, a whole model with its tokenizer, and whether it had to be trained.

    All its weights are trained, in float32, and saved in the recipe's type (an 8B model takes about 16 bytes a parameter:
    128 GB). Texts are joined, an end token after each, and cut into blocks; general text is replayed among them, 1:1
    being what e-Llama used (Herold et al. 2025, "Domain Adaptation of Foundation LLMs for e-Commerce", ACL). The manifest
    holds the perplexity on held-out general and shop text, `before` and `after`; None where there was too little text.

    Nothing that evaluates may be in `texts` (invariant 6). Raises InputError where they do not fill a block,
    TrainingError where training diverges.
    """
    identity = model_identity(recipe.base, recipe.revision)
    kept = recipe.dtype, recipe.gradient_checkpointing, recipe.seed
    folder = root / f"base-{digest(identity, kept, asdict(pretraining), list(texts), list(general))}"
    if read_manifest(folder):
        return folder, False
    base, tokenizer = load_base(recipe, dtype=recipe.dtype)
    ours, shop_text = _split(tokenizer, texts, pretraining.block)
    replay, general_text = _split(tokenizer, general, pretraining.block)
    replay = replay[: round(pretraining.replay_share * len(ours))]
    if not ours:
        raise InputError(
            f"the shop's text fills no block of {pretraining.block} tokens; lower student.pretrain.block or give more text"
        )
    folder.mkdir(parents=True, exist_ok=True)
    before = [perplexity(base, blocks) for blocks in (shop_text, general_text)]
    del base
    with disk_of(folder):
        _train(recipe, pretraining, [*ours, *replay], tokenizer, folder, progress)
        gc.collect()  # the trainer held the model several times over
        trained, _ = load_base(replace(recipe, base=str(folder), revision=None), dtype=recipe.dtype)
        after = [perplexity(trained, blocks) for blocks in (shop_text, general_text)]
        write_manifest(
            folder,
            kind="pretrain",
            base=identity,
            pretraining=asdict(pretraining),
            texts=len(texts),
            tokens=len(ours) * pretraining.block,
            replay_tokens=len(replay) * pretraining.block,
            shop_before=before[0],
            shop_after=after[0],
            general_before=before[1],
            general_after=after[1],
        )
        shutil.rmtree(folder / "checkpoints")  # each as large as three models
    return folder, True


def perplexity(model: Any, blocks: Blocks) -> float | None:  # noqa: ANN401 - any causal language model
    """exp of the mean negative log-likelihood of a token, given those before it in its block; None without blocks."""
    import torch

    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for block in (each for each in blocks if len(each) > 1):
            ids = torch.tensor([block], device=model.device)
            total += float(model(input_ids=ids, labels=ids).loss) * (len(block) - 1)
            tokens += len(block) - 1
    return math.exp(total / tokens) if tokens else None


def read_general(source: str, characters: int) -> list[str]:
    """General texts, about so many characters, from a file with a `text` column or from the train split of a dataset on
    the Hub. Raises InputError where there is no such file or dataset, or no such column.
    """
    texts, held = list[str](), 0
    for text in _file_texts(source) if Path(source).suffix else _hub_texts(source):
        if held >= characters:
            break
        if text and text.strip():
            texts.append(text)
            held += len(text)
    return texts


def _file_texts(source: str) -> Iterator[str]:
    con = duckdb.connect()
    table = open_table(con, source, {"text": "text"}, "the general text")
    with reading("the general text", source):
        for batch in table.to_arrow_reader(1024):
            yield from batch["text"].to_pylist()


def _hub_texts(source: str) -> Iterator[str]:
    from datasets import load_dataset

    try:
        for row in load_dataset(source, split="train", streaming=True):
            yield row["text"]
    except (
        OSError,
        ValueError,
        KeyError,
    ) as error:  # not there, not reachable, of no kind that is known, no such column
        raise InputError(
            f"the general text {source!r} can't be read ({type(error).__name__}: {error}); wanted a Parquet or JSON lines "
            "file with a `text` column, or the name of such a dataset on the Hub"
        ) from error


def _split(tokenizer: Any, texts: Iterable[str], block: int) -> tuple[Blocks, Blocks]:  # noqa: ANN401
    """Whole blocks to train on, and blocks of other texts to measure on; a text is on one side alone, by its hash."""
    trains, measures = list[str](), list[str]()
    for text in texts:
        (measures if held_out(text) else trains).append(text)
    whole = [each for each in blocks_of(tokenizer, trains, block) if len(each) == block]
    return whole, blocks_of(tokenizer, measures, block)[:MEASURED_BLOCKS]


def held_out(text: str) -> bool:
    """Whether a text measures and never trains: by its hash, so that it does wherever it comes from."""
    return int(digest("pretrain", text), 16) % HELD_OUT == 0


def blocks_of(tokenizer: Any, texts: Sequence[str], block: int) -> Blocks:  # noqa: ANN401
    """The texts' tokens, an end token after each, cut every `block` tokens; the last block may be shorter."""
    if not texts:
        return []
    # A catalogue is hostile text: a special token it spells is to be read letter by letter.
    tokenised = tokenizer(list(texts), return_attention_mask=False, split_special_tokens=True)["input_ids"]
    stream = [token for ids in tokenised for token in (*ids, tokenizer.eos_token_id)]
    return [stream[start : start + block] for start in range(0, len(stream), block)]


def _train(
    recipe: Recipe,
    pretraining: Pretraining,
    blocks: Blocks,
    tokenizer: Any,  # noqa: ANN401
    folder: Path,
    progress: Progress,
) -> None:
    """Train on the blocks and leave the model and its tokenizer in `folder`."""
    import torch
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        return {"input_ids": ids, "labels": ids.clone()}

    model, _ = load_base(recipe, dtype="float32")  # Adam's small steps are lost in bfloat16 weights
    config = TrainingArguments(
        **arguments(recipe, folder / "checkpoints"),
        num_train_epochs=pretraining.epochs,
        per_device_train_batch_size=pretraining.batch,
        learning_rate=pretraining.learning_rate,
        warmup_steps=0.03,
        weight_decay=0.1,
        save_strategy="steps",
        save_steps=0.1,
        include_num_input_tokens_seen="all",
    )
    trainer = Trainer(
        model=model,
        args=one_device(config),
        train_dataset=Dataset.from_dict({"input_ids": blocks}),
        data_collator=collate,
    )
    run(trainer, "continued pretraining", folder, progress)
    model.to(getattr(torch, recipe.dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
