"""Which language each query of a log is in, as far as so few words tell."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

UNSURE, OTHER = "unsure", "other"
SURE = 0.8
ROUNDS = 10
LEAST = 10
"""A language of fewer queries is none that figures can be told of."""


def languages(queries: Sequence[str]) -> list[str]:
    """The ISO 639 code of each query; `unsure` below a probability of SURE, `other` for languages of under LEAST queries.

    py3langid gives each query alone a probability a language, for three words a low one of many languages. What the log
    as a whole is written in says more: the shares of its languages are estimated from these by expectation-maximisation
    and weigh each query's probabilities anew (Saerens, Latinne & Decaestecker 2002, Neural Computation 14:21-41).
    """
    if not queries:
        return []
    names, probability = _probabilities(queries)
    share = np.full(len(names), 1 / len(names))
    for _ in range(ROUNDS):
        weighed = probability * share
        weighed /= weighed.sum(axis=1, keepdims=True)
        share = weighed.mean(axis=0)
    found = [names[place] for place in weighed.argmax(axis=1)]
    told = [name if sure >= SURE else UNSURE for name, sure in zip(found, weighed.max(axis=1), strict=True)]
    count = Counter(told)
    return [name if name == UNSURE or count[name] >= LEAST else OTHER for name in told]


def _probabilities(queries: Sequence[str]) -> tuple[list[str], np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """The languages, and of each query the probability of each, squared: py3langid flattens them by the root of the
    text's length, so far that one common language would swallow all others of a log.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    place = {name: number for number, name in enumerate(identifier.labels)}
    rows = np.zeros((len(queries), len(place)))
    for row, query in zip(rows, queries, strict=True):
        for name, probability in identifier.rank(query):
            row[place[name]] = probability**2
    return list(place), rows / rows.sum(axis=1, keepdims=True)
