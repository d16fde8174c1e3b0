"""Retrieval: which catalogue facts go beside a query, by FAISS over character n-grams."""

import json
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np

from labels.embed import NgramEmbedder, Vectors, fit_idf
from labels.files import digest, fresh_folder, read_manifest, write_manifest, write_text
from labels.records import Fact

EMBEDDER = NgramEmbedder.name
BATCH = 8192


class FactIndex:
    """Facts and the FAISS index that finds them."""

    def __init__(self, facts: Sequence[Fact], index: faiss.Index, idf: Vectors) -> None:
        self.facts, self.index, self.idf = facts, index, idf

    @classmethod
    def of(cls, facts: Sequence[Fact]) -> "FactIndex":
        """An index in memory: exact inner product over unit vectors."""
        texts = [fact.indexed for fact in facts]
        idf = fit_idf(texts)
        index = faiss.IndexFlatIP(NgramEmbedder.dimensions)
        for start in range(0, len(texts), BATCH):
            index.add(NgramEmbedder(idf).embed(texts[start : start + BATCH]))
        return cls(facts, index, idf)

    def search(self, queries: Sequence[str], k: int) -> list[list[str]]:
        """For each query the lines of the `k` nearest facts, best first."""
        if not k:
            return [[] for _ in queries]
        lines: list[list[str]] = []
        for start in range(0, len(queries), BATCH):
            _, found = self.index.search(
                NgramEmbedder(self.idf).embed(queries[start : start + BATCH]), min(k, len(self.facts))
            )
            lines += [[self.facts[place].line for place in row if place >= 0] for row in found]
        return lines


def build_index(facts: Sequence[Fact], root: Path) -> tuple[Path, bool]:
    """The folder under `root` that holds these facts' index, built unless it is there already.

    Returns the folder and whether it had to be built.
    """
    folder = root / digest(EMBEDDER, [(fact.line, fact.indexed) for fact in facts])
    if read_manifest(folder):
        return folder, False
    fresh_folder(folder)
    built = FactIndex.of(facts)
    faiss.write_index(built.index, str(folder / "facts.faiss"))
    np.save(folder / "idf.npy", built.idf, allow_pickle=False)
    write_text(folder / "facts.json", json.dumps([[fact.line, fact.indexed] for fact in facts], ensure_ascii=False))
    write_manifest(folder, embedder=EMBEDDER, kind="flat", facts=len(facts))
    return folder, True


def load_index(folder: Path) -> FactIndex:
    """The index in `folder`, which `build_index` gave."""
    facts = [Fact(line, indexed) for line, indexed in json.loads((folder / "facts.json").read_text(encoding="utf-8"))]
    idf: Vectors = np.load(folder / "idf.npy", allow_pickle=False)
    return FactIndex(facts, faiss.read_index(str(folder / "facts.faiss")), idf)
