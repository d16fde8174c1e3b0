"""Text as unit vectors: hashed character n-grams, which need no model, or any sentence-transformers model.

Typos and brand names defeat sentence embeddings; character n-grams find a brand under a typo. Retrieval and the
guardrail `Similar` use the same embedders.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import HashingVectorizer

from labels.errors import SettingsError
from labels.models import model_identity

NGRAMS = "ngrams"
NGRAM_DIMENSIONS = 1024
Vectors = npt.NDArray[np.float32]

_hasher = HashingVectorizer(
    analyzer="char_wb",
    ngram_range=(2, 4),
    n_features=NGRAM_DIMENSIONS,
    norm=None,
    alternate_sign=False,
    dtype=np.float32,
)


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
        """Unit vectors, shape (len(texts), dimensions)."""
        counts = _hasher.transform(texts)
        counts.data = 1 + np.log(counts.data)
        dense: Vectors = counts.toarray() * self.idf
        lengths = np.linalg.norm(dense, axis=1, keepdims=True)
        unit: Vectors = dense / np.where(lengths == 0, 1, lengths)
        return unit


def fit_idf(texts: Sequence[str]) -> Vectors:
    """Inverse document frequencies over `texts`, shape (dimensions,): ln((1 + n) / (1 + df)) + 1, as scikit-learn's."""
    seen = _hasher.transform(texts)
    frequency = np.asarray((seen > 0).sum(axis=0)).ravel()
    idf: Vectors = (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32)
    return idf


class SentenceEmbedder:
    """A sentence-transformers model, from a folder or the Hub."""

    def __init__(self, model: str) -> None:
        """Raises SettingsError where the model can't be loaded."""
        import sentence_transformers

        try:
            self._model: Any = sentence_transformers.SentenceTransformer(model, trust_remote_code=False)
        except Exception as error:
            raise SettingsError(
                f"retrieval.embedder = {model!r}: wanted {NGRAMS!r}, or a sentence-transformers model (a folder, or a "
                f"name on the Hub); loading it failed: {error}"
            ) from error
        self.name = model_identity(model)
        self.dimensions = int(self._model.get_embedding_dimension())

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), dimensions)."""
        found: Vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return found


def open_embedder(embedder: str) -> Embedder:
    """The embedder a setting names: `ngrams`, or a sentence-transformers model. Raises SettingsError."""
    return NgramEmbedder() if embedder == NGRAMS else SentenceEmbedder(embedder)
