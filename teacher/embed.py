"""Text as vectors without a model: hashed character 2-4-grams, weighted by TF-IDF.

Typos and brand names defeat sentence embeddings; character n-grams find a brand under a typo.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import HashingVectorizer

DIMENSIONS = 1024
Vectors = npt.NDArray[np.float32]

_hasher = HashingVectorizer(
    analyzer="char_wb", ngram_range=(2, 4), n_features=DIMENSIONS, norm=None, alternate_sign=False, dtype=np.float32
)


def fit_idf(texts: Sequence[str]) -> Vectors:
    """Inverse document frequencies over `texts`, shape (DIMENSIONS,): ln((1 + n) / (1 + df)) + 1, as scikit-learn's."""
    seen = _hasher.transform(texts)
    frequency = np.asarray((seen > 0).sum(axis=0)).ravel()
    idf: Vectors = (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32)
    return idf


def embed(texts: Sequence[str], idf: Vectors) -> Vectors:
    """Unit vectors, shape (len(texts), DIMENSIONS); a text without any n-gram is all zeros."""
    counts = _hasher.transform(texts)
    counts.data = 1 + np.log(counts.data)
    dense: Vectors = counts.toarray() * idf
    lengths = np.linalg.norm(dense, axis=1, keepdims=True)
    unit: Vectors = dense / np.where(lengths == 0, 1, lengths)
    return unit
