"""Facts in FAISS: exact while they are few, a graph when they are many, compressed when they are very many.

Scores are inner products of unit vectors: cosines. What each kind costs was measured on product titles and queries with
typos, 1,024-dimensional n-grams (bytes an entry; recall@10 of exact search):

- flat: 4,096 B, exact.
- hnsw: 2,320 B (vectors as fp16, 32 links); recall 0.83 to 0.94 at effort 64 and 0.95 to 0.98 at 512 on 50,000 facts, where
  flat is as fast as effort 256.
- ivfpq: 1,174 B (4-bit codes of 4 dimensions each to choose the candidates, 8 bits a dimension to rank them). Over all
  lists recall is 0.99, and still four times faster than flat; over a quarter of them 0.73, as n-grams cluster badly (of
  sentence embeddings 0.91). So the share of lists searched is found by measuring, not fixed. 64 codes of 8 bits, the
  usual choice, trained forty times longer and gave 0.78; 256 principal components first, 0.75.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import faiss
import numpy as np
import numpy.typing as npt

from labels.embed import BATCH, Embedder, NgramEmbedder, Vectors, fit_idf
from labels.errors import SettingsError
from labels.records import Fact

_faiss: Any = faiss  # its type stubs lack what its Python wrappers add

Kind = Literal["flat", "hnsw", "ivfpq"]
FLAT_UP_TO = 100_000
"""Facts: 400 MB of n-grams, and below it a graph that finds as much is no faster."""
HNSW_UP_TO = 300_000
"""Facts: 700 MB of n-grams; beyond, IVF-PQ takes half the memory and of n-grams finds more in the same time."""
TRAINABLE = 1_000
"""Facts below which IVF-PQ has too little to train on; such an index is flat whatever was asked."""
LINKS, CONSTRUCTION = 32, 80
CANDIDATES = 40
"""IVF-PQ: candidates ranked again for each entry wanted (recall 0.95 with 10, 0.99 with 40)."""
SAMPLE = 100_000
"""Vectors IVF-PQ is trained on, at most."""
NEAREST = 10
AIM = 0.95
"""Recall@10 at which the effort of a search is not raised further."""
TIE = 1e-4
"""Scores this near are one score: an entry as near as the tenth best is as right as the tenth."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Found:
    """One thing retrieved: its line and how near it is, a cosine."""

    text: str
    score: float


def kind_for(facts: int, asked: str = "auto") -> Kind:
    """The kind of index for so many facts: `asked`, or by size."""
    if asked == "auto":
        asked = "flat" if facts <= FLAT_UP_TO else "hnsw" if facts <= HNSW_UP_TO else "ivfpq"
    if asked == "ivfpq" and facts < TRAINABLE:
        return "flat"
    if asked not in ("flat", "hnsw", "ivfpq"):
        raise SettingsError(f"retrieval.index = {asked!r}: wanted auto, flat, hnsw or ivfpq")
    return cast(Kind, asked)


class Index:
    """Facts and the FAISS index that finds them. Entry i of `facts` is vector i; `dead` entries are never found."""

    def __init__(
        self,
        facts: list[Fact],
        vectors: faiss.Index,
        embedder: Embedder,
        kind: Kind,
        effort: int = 0,
        dead: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.facts, self.vectors, self.embedder, self.kind = facts, vectors, embedder, kind
        self.dead = np.zeros(len(facts), bool) if dead is None else dead
        self.effort = effort

    @classmethod
    def of(cls, facts: Sequence[Fact], embedder: Embedder, kind: Kind = "flat") -> "Index":
        """An index of `facts`, in memory. N-grams are weighted by how rare they are in these facts."""
        texts = [fact.indexed for fact in facts]
        if isinstance(embedder, NgramEmbedder):
            embedder = NgramEmbedder(fit_idf(texts))
        vectors = _empty(kind, texts, embedder)
        _add(vectors, texts, embedder)
        return cls(list(facts), vectors, embedder, kind, _efforts(kind, vectors)[0])

    @property
    def entries(self) -> int:
        """Facts that can be found."""
        return len(self.facts) - int(self.dead.sum())

    def living(self) -> dict[Fact, int]:
        """The facts that can be found, and where each is."""
        return {fact: place for place, fact in enumerate(self.facts) if not self.dead[place]}

    def updated(self, facts: Sequence[Fact]) -> "Index":
        """The index of exactly `facts`, embedding only those that this one lacks. This one is of no more use.

        A flat index is the same, bit for bit, as one built of `facts` with these n-gram weights. The others keep what
        was removed as dead entries: FAISS can't take an entry out of a graph.
        """
        places = self.living()
        added = [fact for fact in facts if fact not in places]
        if self.kind == "flat":
            fresh = dict(zip(added, self.embedder.embed([fact.indexed for fact in added]), strict=True))
            vectors = faiss.IndexFlatIP(self.embedder.dimensions)
            for start in range(0, len(facts), BATCH):
                batch = facts[start : start + BATCH]
                vectors.add(
                    np.stack([fresh[it] if it in fresh else self.vectors.reconstruct(places[it]) for it in batch])
                )
            return Index(list(facts), vectors, self.embedder, self.kind)
        _add(self.vectors, [fact.indexed for fact in added], self.embedder)
        dead = np.concatenate([self.dead, np.zeros(len(added), bool)])
        dead[[places[fact] for fact in places.keys() - set(facts)]] = True
        return Index(self.facts + added, self.vectors, self.embedder, self.kind, self.effort, dead)

    def search(self, queries: Sequence[str], k: int) -> list[list[Found]]:
        """For each query the `k` nearest facts (all of them, where there are fewer), best first."""
        wanted = min(k, self.entries)
        if wanted < 1:
            return [[] for _ in queries]
        found: list[list[Found]] = []
        facts = self.facts
        for start in range(0, len(queries), BATCH):
            scores, places = self._nearest(self.embedder.embed(queries[start : start + BATCH]), wanted)
            found += [
                [Found(facts[place].line, score) for place, score in zip(*row, strict=True) if place >= 0]
                for row in zip(places.tolist(), scores.tolist(), strict=True)
            ]
        return found

    def tuned(self, probes: Sequence[str]) -> tuple["Index", float]:
        """The index with the least effort that reaches AIM on `probes` (texts), or the most there is; and its recall@10.

        Recall is the share of the ten found that are as near as the tenth of an exact search over the stored vectors.
        """
        if self.kind == "flat" or not len(probes):
            return self, 1.0
        queries = self.embedder.embed(probes)
        wanted = min(NEAREST, self.entries)
        tenth = self._exact(queries, wanted)[:, -1:]
        for effort in _efforts(self.kind, self.vectors):
            index = Index(self.facts, self.vectors, self.embedder, self.kind, effort, self.dead)
            scores, places = index._nearest(queries, wanted)
            recall = float(((scores >= tenth - TIE) & (places >= 0)).mean())
            if recall >= AIM:
                break
        return index, recall

    def _nearest(self, queries: Vectors, k: int) -> tuple[Vectors, Places]:
        return self.vectors.search(queries, k, params=self._parameters())

    def _parameters(self) -> faiss.SearchParameters | None:
        """FAISS's search parameters: the effort, and who is not to be found."""
        alive = _faiss.IDSelectorBitmap(np.packbits(~self.dead, bitorder="little")) if self.dead.any() else None
        if self.kind == "flat":
            return None  # it holds no dead entries
        found: faiss.SearchParameters
        if self.kind == "hnsw":
            found = _faiss.SearchParametersHNSW(efSearch=self.effort, sel=alive)
        else:
            lists = _faiss.SearchParametersIVF(nprobe=self.effort, sel=alive)
            found = _faiss.IndexRefineSearchParameters(k_factor=CANDIDATES, base_index_params=lists)
        return found

    def _exact(self, queries: Vectors, k: int) -> Vectors:
        """The `k` best scores of each query over every living entry, best first, shape (len(queries), k)."""
        best = np.full((len(queries), k), -np.inf, np.float32)
        for start, stored in self._stored():
            living = stored[~self.dead[start : start + len(stored)]]
            scores = np.concatenate([best, queries @ living.T], axis=1)
            best = np.sort(np.partition(scores, -k, axis=1)[:, -k:], axis=1)[:, ::-1]
        return best

    def _stored(self) -> Iterator[tuple[int, Vectors]]:
        for start in range(0, len(self.facts), BATCH):
            yield start, self.vectors.reconstruct_n(start, min(BATCH, len(self.facts) - start))


def _empty(kind: Kind, texts: Sequence[str], embedder: Embedder) -> faiss.Index:
    """An index without entries, trained on a sample of `texts` where its kind needs that."""
    size = embedder.dimensions
    if kind == "flat":
        return faiss.IndexFlatIP(size)
    if kind == "hnsw":
        graph: faiss.IndexHNSWSQ = _faiss.IndexHNSWSQ(
            size, faiss.ScalarQuantizer.QT_fp16, LINKS, faiss.METRIC_INNER_PRODUCT
        )
        graph.hnsw.efConstruction = CONSTRUCTION
        graph.is_trained = True  # fp16 has nothing to learn
        return graph
    sample = texts[:: -(-len(texts) // SAMPLE)]
    # Square root of the entries, as FAISS advises; at least 39 training vectors a list, which is what it asks for.
    lists = min(math.isqrt(len(texts)), len(sample) // 39)
    parts = f"IVF{lists},PQ{size // 4}x4fs,Refine(SQ8)"
    codes: faiss.Index = _faiss.index_factory(size, parts, faiss.METRIC_INNER_PRODUCT)
    codes.train(np.concatenate([embedder.embed(sample[at : at + BATCH]) for at in range(0, len(sample), BATCH)]))
    return codes


def _add(vectors: faiss.Index, texts: Sequence[str], embedder: Embedder) -> None:
    for start in range(0, len(texts), BATCH):
        vectors.add(embedder.embed(texts[start : start + BATCH]))


def _efforts(kind: Kind, vectors: faiss.Index) -> list[int]:
    """Efforts to try, from the least: candidates kept on the way (hnsw), lists searched (ivfpq)."""
    if kind == "flat":
        return [0]
    if kind == "hnsw":
        return [64, 128, 256, 512, 1024]
    lists = _faiss.extract_index_ivf(_faiss.downcast_index(vectors).base_index).nlist
    return sorted({max(1, lists * share // 32) for share in (1, 2, 4, 8, 16, 24, 32)})
