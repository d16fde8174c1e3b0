"""How shoppers type a term: as the catalogue spells it, mistyped, shortened, run together."""

from collections.abc import Set
from typing import Literal

import numpy as np

from demo.words import ABBREVIATIONS, UNITS

Kind = Literal["brand", "product", "attribute"]

# Weights: out of roughly 150, so two terms in three come as the catalogue spells them.
CANONICAL, NUMBER, ABBREVIATED, JOINED, UNIT, TYPO = 100, 14, 12, 8, 14, 2
TYPOS = 7

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: (row[i - 1] if i else "") + (row[i + 1] if i + 1 < len(row) else "")
    for row in _ROWS
    for i, key in enumerate(row)
}


def surfaces(term: str, kind: Kind, rng: np.random.Generator, taken: Set[str] = frozenset()) -> list[tuple[str, int]]:
    """The forms a shopper may type for a term, each with its weight, the canonical form first.

    `taken` holds the canonical forms of all terms: none of them is used as a slip of this one.
    """
    forms: dict[str, int] = {term: CANONICAL}

    def offer(form: str | None, weight: int) -> None:
        if form and form not in taken:
            forms.setdefault(form, weight)

    number, _, unit = term.partition(" ")
    if number.isdigit() and unit in UNITS:
        for pattern in UNITS[unit]:
            offer(pattern.format(n=number), UNIT)
        return list(forms.items())
    if kind == "product":
        offer(other_number(term), NUMBER)
    if kind != "brand":
        offer(abbreviated(term), ABBREVIATED)
    offer(term.replace(" ", ""), JOINED)
    for _ in range(TYPOS):
        offer(typo(term, rng), TYPO)
    return list(forms.items())


def other_number(term: str) -> str | None:
    """The plural of a singular term, the singular of a plural one; None where neither is plain."""
    if term.endswith(("ss", "us", "h", "x", "sh")):
        return None
    if term.endswith("ies"):
        return term[:-3] + "y"
    if term.endswith("toes"):
        return term[:-2]
    if term.endswith("s"):
        return term[:-1]
    if term.endswith("y") and term[-2] not in "aeiou":
        return term[:-1] + "ies"
    return term + "s"


def abbreviated(term: str) -> str | None:
    """The term with whatever has a short form shortened; None where nothing has."""
    if term in ABBREVIATIONS:
        return ABBREVIATIONS[term]
    short = " ".join(ABBREVIATIONS.get(word, word) for word in term.split())
    return short if short != term else None


def typo(term: str, rng: np.random.Generator) -> str | None:
    """One slip of the fingers in one word of four letters or more; None where there is no such word.

    The first letter stays: people rarely miss it, and a query without it is hard for anyone.
    """
    words = term.split()
    long = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long:
        return None
    which = long[int(rng.integers(len(long)))]
    word = words[which]
    at = int(rng.integers(1, len(word)))
    slip = int(rng.integers(4))
    if slip == 0 and at + 1 < len(word):
        new = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif slip == 1:
        new = word[:at] + word[at + 1 :]
    elif slip == 2:
        new = word[:at] + word[at] + word[at:]
    else:
        near = _NEIGHBOURS[word[at]]
        new = word[:at] + near[int(rng.integers(len(near)))] + word[at + 1 :]
    if new == word:  # two equal letters changed places
        return None
    return " ".join([*words[:which], new, *words[which + 1 :]])
