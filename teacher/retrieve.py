"""Retrieval: which facts go beside a query. Indexes are folders named by what they hold, and only the changes are embedded.

An index folder holds facts.parquet, vectors.faiss, for n-grams idf.npy, and last its manifest. A new set of facts starts
from the newest finished index of the same embedder and kind, unless a fifth of it has changed since that was built in full.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labels.embed import NGRAMS, Embedder, NgramEmbedder, open_embedder
from labels.errors import InputError
from labels.files import (
    MANIFEST,
    digest,
    digest_files,
    fresh_folder,
    read_manifest,
    replacing,
    write_manifest,
    write_parquet,
)
from labels.records import Fact, now
from teacher.index import Found, Index, Kind, kind_for

__all__ = ["Built", "Found", "Index", "Retriever", "build_index", "load_index", "open_retriever"]

VERSION = 1  # raise it when the same facts give another index
CHANGED = 0.2
"""Share added and removed since the last full build from which an index is built in full again."""
PROBES = 1000
RANKED = 30
"""Entries of each index that fusion looks at, at least."""
RRF = 60
"""The constant of reciprocal rank fusion, as published."""


@dataclass(frozen=True)
class Built:
    """How an index came to be. `recall_at_10` is of exact search, measured when it was built or updated."""

    folder: Path
    how: Literal["reused", "updated", "built"]
    embedder: str
    kind: Kind
    entries: int
    added: int
    removed: int
    recall_at_10: float


class Retriever:
    """One index, or several whose rankings are fused."""

    def __init__(self, indexes: Sequence[Index]) -> None:
        self.indexes = indexes

    def search(self, queries: Sequence[str], k: int) -> list[list[Found]]:
        """For each query the `k` best facts, best first. Where rankings were fused, a score is the best cosine."""
        if len(self.indexes) == 1 or k < 1:
            return self.indexes[0].search(queries, k)
        rankings = [index.search(queries, max(k, RANKED)) for index in self.indexes]
        return [_fused(of_one, k) for of_one in zip(*rankings, strict=True)]


def _fused(rankings: Iterable[Sequence[Found]], k: int) -> list[Found]:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): a text's votes are the sum of 1 / (60 + rank)."""
    votes: dict[str, float] = {}
    nearest: dict[str, float] = {}
    for ranking in rankings:
        for rank, found in enumerate(ranking, start=1):
            votes[found.text] = votes.get(found.text, 0) + 1 / (RRF + rank)
            nearest[found.text] = max(nearest.get(found.text, -1), found.score)
    best = sorted(votes, key=lambda text: (-votes[text], -nearest[text], text))[:k]
    return [Found(text, nearest[text]) for text in best]


def open_retriever(
    facts: Sequence[Fact],
    root: Path,
    embedder: str,
    lexical: bool = True,
    kind: str = "auto",
    probes: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Retriever, list[Built]]:
    """The retriever over `facts`, its indexes under `root` reused, updated or built, and how each came to be.

    `embedder` is `ngrams` or a sentence-transformers model; with `lexical`, n-grams stand beside such a model. `probes`
    are queries to measure recall on. Indexes under `root` that are of no more use are removed. `progress` is told
    where an index was damaged and is built again. Raises SettingsError for an unknown embedder.
    """
    names = [embedder] + ([NGRAMS] if lexical and embedder != NGRAMS else [])
    opened = [_opened(facts, root, open_embedder(name), kind, probes, progress) for name in names]
    built = [it for _, it in opened]
    for folder in _folders(root):
        if folder not in {it.folder for it in built}:
            _remove(folder)
    return Retriever([index for index, _ in opened]), built


def _opened(
    facts: Sequence[Fact], root: Path, embedder: Embedder, kind: str, probes: Sequence[str], say: Callable[[str], None]
) -> tuple[Index, Built]:
    """The index, built again where the one that is there is damaged."""
    built = build_index(facts, root, embedder, kind, probes)
    try:
        return load_index(built.folder, embedder), built
    except InputError as error:
        say(f"{error}; it is built again now")
        _remove(built.folder)
    built = build_index(facts, root, embedder, kind, probes)
    return load_index(built.folder, embedder), built


def build_index(
    facts: Sequence[Fact], root: Path, embedder: Embedder, kind: str = "auto", probes: Sequence[str] = ()
) -> Built:
    """The index of these facts under `root`: the one that is there, else an update of the newest, else a new one.

    `kind` is auto (by size), flat, hnsw or ivfpq. `probes` are queries to measure recall on, up to 1,000 of them; the
    facts' own texts where there are none. The folder has a manifest only once the index is whole.
    """
    facts = list(dict.fromkeys(facts))
    made = kind_for(len(facts), kind)
    folder = root / _name(facts, embedder, made)
    if manifest := _manifest(folder):
        return Built(folder, "reused", embedder.name, made, len(facts), 0, 0, manifest["recall_at_10"])
    update = _update(facts, root, embedder, made)
    index, change = update or (Index.of(facts, embedder, made), Change(len(facts), 0, len(facts), 0))
    index, recall = index.tuned(_some(probes or [fact.indexed for fact in facts]))
    _save(index, folder, recall, change)
    how: Literal["updated", "built"] = "updated" if update else "built"
    return Built(folder, how, embedder.name, made, len(facts), change.added, change.removed, recall)


def load_index(folder: Path, embedder: Embedder) -> Index:
    """The index in `folder`, which `build_index` gave, to be asked through `embedder`.

    Raises InputError where there is no finished index, where another embedder made it, or where it is damaged.
    """
    remedy = f"delete {folder} and run again"
    manifest = _manifest(folder)
    if manifest is None:
        raise InputError(f"no finished index lies in {folder}; run again to build it")
    if manifest["embedder"] != embedder.name:
        raise InputError(
            f"the index in {folder} was made with {manifest['embedder']}, wanted {embedder.name}: their vectors can't be "
            f"compared; {remedy}, or set retrieval.embedder back"
        )
    try:
        if digest_files(_parts(folder)) != manifest["content"]:
            raise ValueError("its files are not what its manifest says")
        table = pq.read_table(folder / "facts.parquet")
        facts = list(map(Fact, table["line"].to_pylist(), table["indexed"].to_pylist()))
        if isinstance(embedder, NgramEmbedder):
            embedder = NgramEmbedder(np.load(folder / "idf.npy", allow_pickle=False))
        vectors = faiss.read_index(str(folder / "vectors.faiss"))
        dead = table["dead"].to_numpy().astype(bool)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"the index in {folder} is damaged ({error}); {remedy}") from error
    return Index(facts, vectors, embedder, manifest["kind"], manifest["effort"], dead)


@dataclass(frozen=True)
class Change:
    """What an index adds to and removes from the one it started from, and what changed since the last full build."""

    added: int
    removed: int
    full: int
    since_full: int


def _update(facts: Sequence[Fact], root: Path, embedder: Embedder, kind: Kind) -> tuple[Index, Change] | None:
    """The newest index of this embedder and kind, brought up to `facts`; None where a full build is due."""
    finished = [(manifest, folder) for folder in _folders(root) if (manifest := _manifest(folder))]
    same = [it for it in finished if (it[0]["embedder"], it[0]["kind"]) == (embedder.name, kind)]
    if not same:
        return None
    manifest, folder = max(same, key=lambda it: str(it[0]["created"]))
    try:
        index = load_index(folder, embedder)
    except InputError:
        return None  # damaged: there is nothing to start from
    living, wanted = index.living(), set(facts)
    added, removed = len(wanted - living.keys()), len(living.keys() - wanted)
    change = Change(added, removed, manifest["full"], manifest["since_full"] + added + removed)
    return (index.updated(facts), change) if change.since_full < CHANGED * change.full else None


def _save(index: Index, folder: Path, recall: float, change: Change) -> None:
    """Write the index's folder, the manifest last. Raises OSError where it can't be written."""
    fresh_folder(folder)
    lines, indexed = [fact.line for fact in index.facts], [fact.indexed for fact in index.facts]
    write_parquet(folder / "facts.parquet", pa.table({"line": lines, "indexed": indexed, "dead": index.dead}))
    if isinstance(index.embedder, NgramEmbedder):
        np.save(folder / "idf.npy", index.embedder.idf, allow_pickle=False)
    with replacing(folder / "vectors.faiss") as temporary:
        try:
            faiss.write_index(index.vectors, str(temporary))
        except RuntimeError as error:  # FAISS says so when the disk is full
            raise OSError(f"the index in {folder} can't be written: {error}") from error
    write_manifest(
        folder,
        version=VERSION,
        embedder=index.embedder.name,
        kind=index.kind,
        effort=index.effort,
        recall_at_10=round(recall, 4),
        entries=index.entries,
        full=change.full,
        since_full=change.since_full,
        content=digest_files(_parts(folder)),
        created=now(),
    )


def _manifest(folder: Path) -> dict[str, Any] | None:
    """What a finished index of this version says of itself; None where there is none, or its manifest is unreadable."""
    try:
        manifest = read_manifest(folder)
    except ValueError:
        return None
    return manifest if manifest and manifest.get("version") == VERSION else None


def _name(facts: Sequence[Fact], embedder: Embedder, kind: Kind) -> str:
    content = hashlib.sha256()
    for fact in facts:
        content.update(f"{fact.line}\0{fact.indexed}\n".encode())
    return digest(VERSION, embedder.name, kind, content.hexdigest())


def _parts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != MANIFEST]


def _folders(root: Path) -> list[Path]:
    return [it for it in root.iterdir() if it.is_dir()] if root.is_dir() else []


def _remove(folder: Path) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)  # first, so that no reader takes the rest for an index
    shutil.rmtree(folder)


def _some(probes: Sequence[str]) -> Sequence[str]:
    return probes[:: max(1, -(-len(probes) // PROBES))]
