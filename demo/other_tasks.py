"""The two tasks the student base is pretrained on: not the shop's, so that it knows the format but not the work."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from demo.brands import brand_names
from demo.surfaces import surfaces
from demo.words import ATTRIBUTES, PRODUCTS
from labels.task import Task


class Spelling(Task):
    """Correct the spelling. Answer in JSON."""

    name: ClassVar[str] = "spelling"
    text: str = Field(description="the words as they should be")


class Trip(Task):
    """Find what a traveller's request names. Answer in JSON."""

    name: ClassVar[str] = "trip"
    means: str = Field(description="how to get there")
    place: str = Field(description="where to")
    wishes: list[str] = Field(description="what else matters")


MEANS = ("flight", "train", "coach", "ferry", "hire car", "night train", "cruise", "taxi")
WISHES = ("cheap", "direct", "first class", "window seat", "with a dog", "tomorrow", "one way", "at night", "for two")


def spelling_examples(count: int, seed: int) -> list[tuple[str, Spelling]]:
    """`count` pairs of a mistyped text of one to four words or terms and its correction."""
    rng = np.random.default_rng(seed)
    terms = [*PRODUCTS, *ATTRIBUTES, *brand_names("pretraining", 2000, seed)]
    kinds = ["product"] * len(PRODUCTS) + ["attribute"] * len(ATTRIBUTES) + ["brand"] * 2000
    forms = [surfaces(term, kind, rng) for term, kind in zip(terms, kinds, strict=True)]  # type: ignore[arg-type]
    examples = []
    for _ in range(count):
        chosen = rng.integers(len(terms), size=rng.integers(1, 4))
        typed = [forms[place][rng.integers(len(forms[place]))][0] for place in chosen]
        examples.append((" ".join(typed), Spelling(text=" ".join(terms[place] for place in chosen))))
    return examples


def trip_examples(count: int, seed: int) -> list[tuple[str, Trip]]:
    """`count` travel requests with what they name."""
    rng = np.random.default_rng(seed)
    places = brand_names("pretraining", 3000, seed + 1)
    examples = []
    for _ in range(count):
        means = MEANS[rng.integers(len(MEANS))] if rng.integers(4) else ""
        place = places[rng.integers(len(places))] if rng.integers(8) else ""
        wishes = [WISHES[i] for i in rng.permutation(len(WISHES))[: rng.integers(3)]]
        parts = [part for part in (means, place, *wishes) if part]
        if not parts:
            continue
        order = rng.permutation(len(parts)) if rng.integers(2) else range(len(parts))
        text = " ".join(parts[i] for i in order)
        wishes.sort(key=text.index)
        examples.append((text, Trip(means=means, place=place, wishes=wishes)))
    return examples
