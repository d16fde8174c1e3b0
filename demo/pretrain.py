"""The training loop of the tiny models: Muon on the matrices, AdamW on the rest.

The instruction is the same in every example of a task, so its keys and values are computed once a step and shared
by the batch (gradients included), which saves a third of the work.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from rich.progress import Progress
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.examples import Example
from demo.muon import Muon

BATCH = 64
PROMPT_WEIGHT = 0.07
WARM_UP = 20


def new_model(
    tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, head: int, feed_forward: int, seed: int
) -> LlamaForCausalLM:
    """An untrained Llama with tied embeddings."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // head,
        num_key_value_heads=hidden // head,
        head_dim=head,
        intermediate_size=feed_forward,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    examples: Sequence[Example],
    steps: int,
    matrix_rate: float,
    other_rate: float,
    seed: int,
    say: Callable[[str], None] = print,
) -> list[float]:
    """Train in place for `steps` batches of one shared prefix each; returns the answer loss of every step."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimisers = [
        Muon(matrices, lr=matrix_rate),
        torch.optim.AdamW(others, lr=other_rate, weight_decay=0.0, betas=(0.9, 0.95)),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, steps)) for o in optimisers]
    rng = np.random.default_rng(seed)
    losses: list[float] = []
    model.train()
    start = time.perf_counter()
    with Progress() as progress:
        bar = progress.add_task("training", total=steps)
        for batch in _batches(examples, steps, rng):
            loss, answer_loss = _loss(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser, schedule in zip(optimisers, schedules, strict=True):
                optimiser.step()
                schedule.step()
                optimiser.zero_grad(set_to_none=True)
            losses.append(answer_loss)
            progress.advance(bar)
            if len(losses) % 50 == 0:
                mean = sum(losses[-50:]) / 50
                say(f"step {len(losses)}/{steps}  loss {mean:.3f}  {time.perf_counter() - start:.0f} s")
    return losses


def _rate(step: int, steps: int) -> float:
    return min((step + 1) / WARM_UP, (steps - step) / max(1, steps - WARM_UP), 1.0)


def _batches(examples: Sequence[Example], steps: int, rng: np.random.Generator) -> list[list[Example]]:
    """`steps` batches in random order; each of about one length (little padding) and of one task (one prefix)."""
    chosen = [examples[i] for i in rng.permutation(len(examples))[: steps * BATCH]]
    if len(chosen) < steps * BATCH:
        chosen += [examples[i] for i in rng.integers(len(examples), size=steps * BATCH - len(chosen))]
    chosen.sort(key=lambda example: (tuple(example.ids[: example.prefix]), len(example.ids)))
    batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    batches = [[e for e in batch if e.ids[: e.prefix] == batch[0].ids[: batch[0].prefix]] for batch in batches]
    return [batches[i] for i in rng.permutation(len(batches))]


def _loss(model: LlamaForCausalLM, batch: Sequence[Example]) -> tuple[torch.Tensor, float]:
    prefix = batch[0].prefix
    longest = max(len(example.ids) for example in batch) - prefix
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    weights = torch.zeros((len(batch), longest))
    for row, example in enumerate(batch):
        rest = example.ids[prefix:]
        ids[row, : len(rest)] = torch.tensor(rest)
        weights[row, : len(rest)] = PROMPT_WEIGHT
        weights[row, example.answer - prefix : len(rest)] = 1.0
    shared = model.model(torch.tensor([batch[0].ids[:prefix]]), use_cache=True).past_key_values
    cache = DynamicCache()
    for number, layer in enumerate(shared.layers):
        size = (len(batch), -1, -1, -1)
        cache.update(layer.keys.expand(size), layer.values.expand(size), number)
    logits = model(ids, past_key_values=cache, use_cache=True).logits[:, :-1]
    each = cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none")
    weight = weights[:, 1:]
    answer = weight == 1.0
    return (each * weight).sum() / weight.sum(), float(each[answer].mean().detach())
