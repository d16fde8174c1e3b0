"""Pretraining examples: the production prompt, token for token, and the answer, from invented shops.

Only shops of the *pretraining* side are drawn, so no brand of the demo's shop is ever seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from demo.shop import Shop, make_shop
from labels.embed import NgramEmbedder
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from labels.task import Task
from teacher.catalogue import fact_of
from teacher.index import Index

FACTS = 3
NO_FACTS_SHARE = 0.1


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and answer; `answer` is where the answer starts, `prefix` where the shared part ends."""

    ids: list[int]
    prefix: int
    answer: int


Asked = tuple[str, Sequence[str], Task]


def pretraining_shops(count: int, seed: int, queries: int) -> Iterator[Shop]:
    """`count` shops of `queries` distinct queries each, whose brands are kept apart from the demo's."""
    for number in range(count):
        yield make_shop(seed=seed + number, side="pretraining", queries=queries)


def shop_asked(shop: Shop, seed: int, no_facts: float = NO_FACTS_SHARE) -> list[Asked]:
    """Every query of a shop with the facts retrieval finds in its catalogue (none for a share) and its gold."""
    columns = (shop.catalogue[name].to_pylist() for name in ("brand", "product", "title"))
    facts = sorted({fact_of(*row) for row in zip(*columns, strict=True)}, key=lambda fact: fact.line)
    pool = shop.pool.to_pylist()
    found = Index.of(facts, NgramEmbedder()).search([row["query"] for row in pool], FACTS)
    bare = np.random.default_rng(seed).random(len(pool)) < no_facts
    return [
        (
            row["query"],
            [] if none else [it.text for it in nearest],
            SemanticRoles(**{k: row[k] for k in SemanticRoles.model_fields}),
        )
        for row, nearest, none in zip(pool, found, bare, strict=True)
    ]


def encode(asked: Sequence[Asked], tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """The examples as the server will render them: chat template, generation prompt, answer, end of turn."""
    prompts = [
        tokenizer.apply_chat_template(messages(type(gold), query, facts), tokenize=False, add_generation_prompt=True)
        for query, facts, gold in asked
    ]
    answers = [gold.to_json() + tokenizer.eos_token for _, _, gold in asked]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    return [
        Example(ids=prompt + answer, prefix=prompt.index(user) + 1, answer=len(prompt))
        for prompt, answer in zip(prompt_ids, answer_ids, strict=True)
    ]
