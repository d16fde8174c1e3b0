"""Text as unit vectors: hashed character n-grams, which need no model, or any sentence-transformers model.

Typos and brand names defeat sentence embeddings; character n-grams find a brand under a typo. Retrieval and the
guardrail `Similar` use the same embedders.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from labels.errors import SettingsError
from labels.files import digest_files

NGRAMS = "ngrams"
NGRAM_DIMENSIONS = 1024
BATCH = 8192
"""Texts whose dense n-gram vectors are held at a time: 32 MiB."""
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""What a sentence-transformers model is made of, in its folder and those below; nothing that could be a pickle."""
Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors. `name` tells embedders apart: vectors of two names are never compared."""

    name: str
    dimensions: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), dimensions); a text without any feature is all zeros."""
        ...


class NgramEmbedder:
    """Hashed character 2-4-grams, weighted by TF-IDF."""

    name = "character 2-4-grams, TF-IDF, 1024 dimensions, version 1"
    dimensions = NGRAM_DIMENSIONS

    def __init__(self, idf: Vectors | None = None) -> None:
        """`idf`: what `fit_idf` gave, shape (dimensions,); without it every n-gram weighs the same."""
        self.idf = np.ones(NGRAM_DIMENSIONS, np.float32) if idf is None else idf

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), dimensions). A text's vector does not depend on the texts beside it."""
        if not len(texts):
            return np.zeros((0, NGRAM_DIMENSIONS), np.float32)
        counts = _hasher().transform(texts)
        counts.data = 1 + np.log(counts.data)
        dense: Vectors = counts.toarray() * self.idf
        lengths = np.linalg.norm(dense, axis=1, keepdims=True)
        unit: Vectors = dense / np.where(lengths == 0, 1, lengths)
        return unit


def fit_idf(texts: Sequence[str]) -> Vectors:
    """Inverse document frequencies over `texts`, shape (dimensions,): ln((1 + n) / (1 + df)) + 1, as scikit-learn's."""
    frequency = np.zeros(NGRAM_DIMENSIONS, np.int64)
    for start in range(0, len(texts), BATCH):
        seen = _hasher().transform(texts[start : start + BATCH])
        frequency += np.bincount(seen.indices, minlength=NGRAM_DIMENSIONS)  # one entry a text and n-gram
    idf: Vectors = (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32)
    return idf


@cache
def _hasher() -> Any:  # noqa: ANN401  # scikit-learn has no types
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char_wb",
        ngram_range=(2, 4),
        n_features=NGRAM_DIMENSIONS,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )


class SentenceEmbedder:
    """A sentence-transformers model, from a folder or the Hub; safetensors alone are read, and no code of the model's."""

    def __init__(self, model: str) -> None:
        """Raises SettingsError where the model can't be loaded."""
        from sentence_transformers import SentenceTransformer

        load: Any = SentenceTransformer
        try:
            folder = Path(model) if Path(model).is_dir() else _from_hub(model)
            self.name = _identity(model, folder)
            self._model = load(
                str(folder), trust_remote_code=False, local_files_only=True, model_kwargs={"use_safetensors": True}
            )
        except Exception as error:
            raise SettingsError(
                f"retrieval.embedder = {model!r}: wanted {NGRAMS!r}, or a sentence-transformers model with safetensors "
                f"(a folder, or a name on the Hub); loading it failed: {error}"
            ) from error
        self.dimensions = int(self._model.get_embedding_dimension())

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), dimensions)."""
        if not len(texts):
            return np.zeros((0, self.dimensions), np.float32)
        found: Vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return found.astype(np.float32, copy=False)


def open_embedder(embedder: str) -> Embedder:
    """The embedder a setting names: `ngrams`, or a sentence-transformers model. Raises SettingsError."""
    return NgramEmbedder() if embedder == NGRAMS else SentenceEmbedder(embedder)


def _from_hub(model: str) -> Path:
    """The folder of a model on the Hub, downloaded unless it is there; without an owner it is sentence-transformers'."""
    from huggingface_hub import snapshot_download

    if model.startswith((".", "/", "~")):
        raise FileNotFoundError(f"there is no folder {model}")
    name = model if "/" in model else f"sentence-transformers/{model}"
    return Path(snapshot_download(name, allow_patterns=list(MODEL_FILES)))


def _identity(model: str, folder: Path) -> str:
    """`name-hash` over the files of the model and of its parts (pooling, dense layers), wherever they came from."""
    unsafe = [it for it in folder.rglob("pytorch_model*.bin") if not list(it.parent.glob("*.safetensors"))]
    if unsafe:
        raise ValueError(f"{unsafe[0]} is a pickle, which is never loaded; save the model as safetensors")
    files = [path for pattern in MODEL_FILES for path in folder.rglob(pattern)]
    if not any(path.suffix == ".safetensors" for path in files):
        raise FileNotFoundError(f"{folder} holds no safetensors")
    return f"{Path(model).name}-{digest_files(files)}"
