"""Near-duplicates: queries near to what measures, found exactly, and rows that say the same twice, found by MinHash."""

from collections.abc import Iterable, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

NEAR = 90.0
"""Two queries are near-duplicates from this ratio on (0 to 100), their words sorted or their spaces left out: words
in another order give 100, and so do words written as one."""
BLOCK = 1000
GRAM = 3
PERMUTATIONS = 128
WEIGHTS = (0.1, 0.9)
"""What a pair found for nothing and a pair missed weigh when LSH sets its bands: the former is told by its Jaccard."""
STRICTEST = 0.98
"""LSH can't be set to propose only what is more alike."""

Flags = NDArray[np.bool_]


def near_duplicates(queries: Sequence[str], against: Iterable[str]) -> list[bool]:
    """Whether each query is equal or near (NEAR) to any of `against`; exact, every pair that can be near is compared."""
    others, close = set(against), np.zeros(len(queries), dtype=bool)
    for form in (_words_sorted, _closed_up):
        close |= _near([form(query) for query in queries], {form(other) for other in others})
    flags: list[bool] = close.tolist()
    return flags


def collapsed(queries: Sequence[str], answers: Sequence[str], near: float) -> list[bool]:
    """Which queries, given best first, have a better one with an equal answer and a Jaccard similarity of `near` or more.

    The similarity is that of the sets of character trigrams of the queries' words, so that word order does not count.
    MinHash LSH (Broder 1997; Indyk & Motwani 1998) proposes pairs, of which it misses a few in a hundred; their true
    similarity decides. At `near` 1 none is sought. Queries that only a dropped one resembles stay.
    """
    repeats = [False] * len(queries)
    if near >= 1 or len(set(answers)) == len(answers):
        return repeats
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=min(near, STRICTEST), num_perm=PERMUTATIONS, weights=WEIGHTS)
    places = _sharing(answers)
    grams = {place: _trigrams(queries[place]) for place in places}
    texts = ([f"{answers[place]}\0{gram}".encode() for gram in grams[place]] for place in places)
    hashes = MinHash.generator(texts, num_perm=PERMUTATIONS, seed=1, scheme="affine32", hashfunc=crc32)
    for place, minhash in zip(places, hashes, strict=True):
        repeats[place] = any(
            answers[other] == answers[place] and _jaccard(grams[other], grams[place]) >= near
            for other in index.query(minhash)
        )
        if not repeats[place]:
            index.insert(place, minhash)
    return repeats


def _near(ours: Sequence[str], others: Iterable[str]) -> Flags:
    """Lengths a and b allow a ratio of 2 min(a, b) / (a + b) at most, so only texts of like length are compared."""
    theirs = sorted(others, key=len)
    lengths, their_lengths = (np.array([len(text) for text in texts]) for texts in (ours, theirs))
    longest = (200 - NEAR) / NEAR + 1e-9
    close = np.zeros(len(ours), dtype=bool)
    order = np.argsort(lengths, kind="stable")
    for block in (order[start : start + BLOCK] for start in range(0, len(order), BLOCK)):
        low = np.searchsorted(their_lengths, lengths[block[0]] / longest)
        high = np.searchsorted(their_lengths, lengths[block[-1]] * longest, side="right")
        if low < high:
            some = [ours[place] for place in block]
            scores = process.cdist(
                some, theirs[low:high], scorer=fuzz.ratio, score_cutoff=NEAR, dtype=np.uint8, workers=-1
            )
            close[block] = scores.max(axis=1) >= NEAR
    return close


def _words_sorted(query: str) -> str:
    return " ".join(sorted(query.split()))


def _closed_up(query: str) -> str:
    return "".join(query.split())


def _sharing(answers: Sequence[str]) -> list[int]:
    """The places of those whose answer another one has too: the only ones that can repeat anything."""
    places: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        places.setdefault(answer, []).append(place)
    return sorted(place for group in places.values() if len(group) > 1 for place in group)


def _trigrams(query: str) -> frozenset[str]:
    padded = [f" {word} " for word in query.split()]
    return frozenset(word[at : at + GRAM] for word in padded for at in range(len(word) - GRAM + 1))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0
