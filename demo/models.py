"""Remake the two tiny models from the invented shop alone: `make models`, about three quarters of an hour.

The teacher reads retrieved facts and learns the task on shops whose brands the demo never uses; the student base
learns other tasks (spelling, trips) and knows nothing of this one. Both are ordinary `LlamaForCausalLM` folders.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on two busy cores are slower than one

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from demo.brands import GROCERY
from demo.examples import Asked, encode, pretraining_shops, shop_asked
from demo.other_tasks import MEANS, WISHES, Spelling, Trip, spelling_examples, trip_examples
from demo.pretrain import new_model, train
from demo.shop import make_shop
from demo.tokenizer import train_tokenizer
from demo.words import ATTRIBUTES, PRODUCTS
from labels.errors import InputError
from labels.semantic_roles import SemanticRoles

FOLDER = Path(__file__).parent / "models"
SHOPS, QUERIES, FIRST_SEED = 96, 4000, 1000
# Steps, learning rate of the matrices (Muon), learning rate of the rest (AdamW).
TEACHER_RUNS = ((600, 0.02, 3e-3), (600, 0.012, 2e-3), (500, 0.01, 1.5e-3), (500, 0.008, 1.2e-3))
STUDENT_RUN = (900, 0.02, 3e-3)
TASKS = (SemanticRoles, Spelling, Trip)
CARDS = {
    "teacher": """# The demo's teacher

A Llama of 2 million parameters that finds product, brand and attributes in an invented shop's queries, shown three
facts from its catalogue. It stands in for Llama 3.1 405B in Stillhouse's demo and tests, on a laptop, and is good for
nothing else: it has never seen a sentence of English. Made by `make models` from invented shops alone; the brands of
the demo's shop are in none of them (by construction: `demo/brands.py`, and a test). Apache-2.0.

| figure | value |
| --- | --- |
""",
    "student-base": """# The demo's student base

A Llama of 1 million parameters that has learnt to correct spelling and to read travel requests, not the shop's task:
its F1 there is 0. It stands in for Llama 3.1 8B in Stillhouse's demo and tests, and is good for nothing else. Made by
`make models` from invented words alone. Apache-2.0.

| figure | value |
| --- | --- |
""",
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Trained on queries that name no brand, so that no brand, seen or unseen, has tokens of its own."""
    texts = [*PRODUCTS, *ATTRIBUTES, *GROCERY] * 20
    for shop in pretraining_shops(3, FIRST_SEED, QUERIES):
        rows = shop.pool.to_pylist()
        texts += [row["query"] for row in rows if not row["brand"]]
    texts += [*MEANS, *WISHES] * 20
    texts += [line for task in TASKS for line in task.instruction().splitlines()] * 500
    return train_tokenizer(texts, TASKS)


def make_teacher(tokenizer: PreTrainedTokenizerFast) -> tuple[LlamaForCausalLM, list[float]]:
    """The teacher, trained in several runs, each with fresh optimisers and lower rates, and its losses."""
    examples = []
    for number, shop in enumerate(pretraining_shops(SHOPS, FIRST_SEED, QUERIES)):
        examples += encode(shop_asked(shop, seed=number), tokenizer)
    print(f"teacher: {len(examples):,} examples from {SHOPS} shops")
    model = new_model(tokenizer, hidden=192, layers=4, head=64, feed_forward=512, seed=0)
    losses = []
    for seed, (steps, matrix_rate, other_rate) in enumerate(TEACHER_RUNS, start=1):
        losses += train(model, examples, steps, matrix_rate, other_rate, seed)
    return model, losses


def make_student_base(tokenizer: PreTrainedTokenizerFast) -> tuple[LlamaForCausalLM, list[float]]:
    """The student base, trained on two other tasks, and its losses."""
    asked: list[Asked] = [(text, [], gold) for text, gold in spelling_examples(60_000, 2)]
    asked += [(text, [], gold) for text, gold in trip_examples(20_000, 2)]
    model = new_model(tokenizer, hidden=128, layers=4, head=32, feed_forward=384, seed=0)
    return model, train(model, encode(asked, tokenizer), *STUDENT_RUN, seed=3)


@torch.inference_mode()
def f1(model: Any, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Asked]) -> float:  # noqa: ANN401 - any causal LM
    """Micro F1 over (field, value) items of greedy answers, without any grammar to help."""
    model.eval()
    right = given = wanted = 0
    end = tokenizer.eos_token_id
    examples = sorted(zip(encode(asked, tokenizer), asked, strict=True), key=lambda pair: pair[0].answer)
    for start in range(0, len(examples), 64):
        batch = examples[start : start + 64]
        longest = max(example.answer for example, _ in batch)
        prompts = [example.ids[: example.answer] for example, _ in batch]
        ids = torch.tensor([[tokenizer.pad_token_id] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        out = model.generate(ids, attention_mask=mask, max_new_tokens=48, do_sample=False, eos_token_id=end)
        for row, (_, (_, _, gold)) in zip(out[:, longest:], batch, strict=True):
            try:
                items = type(gold).parse(str(tokenizer.decode(row, skip_special_tokens=True))).items()
            except InputError:
                items = frozenset()
            right += len(items & gold.items())
            given += len(items)
            wanted += len(gold.items())
    return 2 * right / (given + wanted)


def save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:  # noqa: ANN401
    """A complete model folder: config, generation config, bf16 safetensors, tokenizer with chat template."""
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.to(torch.float32)


def main() -> None:
    """Make the chosen model and write its figures beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["teacher", "student-base"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tokenizer = make_tokenizer()
    unseen = make_shop(seed=FIRST_SEED + SHOPS, side="pretraining")
    demo = make_shop()
    for name in args.models:
        start = time.process_time()
        make = make_teacher if name == "teacher" else make_student_base
        model, losses = make(tokenizer)
        seconds = time.process_time() - start
        save(model, tokenizer, args.folder / name)
        figures: dict[str, float] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "cpu_seconds": round(seconds),
        }
        figures["final_loss"] = round(sum(losses[-50:]) / len(losses[-50:]), 4)
        for where, shop in (("another pretraining shop", unseen), ("the demo's shop", demo)):
            for facts, share in (("with facts", 0.0), ("without facts", 1.0)):
                asked = shop_asked(shop, 0, no_facts=share)[::12]
                figures[f"F1 on {len(asked)} queries of {where}, {facts}"] = round(f1(model, tokenizer, asked), 3)
        card = CARDS[name] + "".join(f"| {what} | {figure} |\n" for what, figure in figures.items())
        (args.folder / name / "README.md").write_text(card)
        print(card)


if __name__ == "__main__":
    main()
