"""Real queries for Stillhouse: QueryNER's gold, held out for measuring. The log is QueryNER's own file.

    python -m demo.queryner TRAIN.jsonl FOLDER
    stillhouse night --log TRAIN.jsonl --set gold.path=FOLDER/gold.jsonl --catalogue …

QueryNER (Palen-Michel et al., LREC-COLING 2024) marks 17 kinds of span in real Amazon queries, token by token (BIO).
FOLDER gets gold.jsonl: query, product, brand and attributes, for every fifth distinct query by a stable hash. Those are
held out, so they never train. TRAIN.jsonl is the log as it is (column `query`, a row an event) and is copied nowhere.

The 17 kinds collapse to three slots: core_product_type and product_name are the product, creator is the brand, and
every other kind is an attribute. Spans of one product or brand are joined by a space in the order of the query.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from labels.errors import InputError, StillhouseError
from labels.files import digest, write_text
from labels.normalise import normalise
from labels.semantic_roles import SemanticRoles

PRODUCT = ("core_product_type", "product_name")
BRAND = ("creator",)
HELD_OUT = 5


class Counts(NamedTuple):
    """Distinct queries in the file, and those of them written as gold."""

    queries: int
    gold: int


def write_gold(train: Path, folder: Path) -> Counts:
    """Write `folder`/gold.jsonl from a QueryNER file. Raises InputError where the file is not QueryNER's.

    Where a query comes twice its first annotation counts.
    """
    gold: dict[str, SemanticRoles] = {}
    for place, line in _lines(train):
        try:
            row = json.loads(line)
            query, answer = normalise(row["query"]), collapse(row["tokens"], row["labels"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"the queries {train}, line {place}: wanted QueryNER's query, tokens and labels (one B-, I- or O a token), "
                f"got {type(error).__name__}: {error}"
            ) from None
        gold.setdefault(query, answer)
    if not gold:
        raise InputError(f"the queries {train} are empty; wanted at least one line")
    rows = [{"query": query, **answer.model_dump()} for query, answer in gold.items() if held_out(query)]
    write_text(folder / "gold.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return Counts(len(gold), len(rows))


def collapse(tokens: Sequence[str], labels: Sequence[str]) -> SemanticRoles:
    """The slots of one annotated query, in normal form."""
    products: list[str] = []
    brands: list[str] = []
    attributes: list[str] = []
    for kind, text in spans(tokens, labels):
        slot = products if kind in PRODUCT else brands if kind in BRAND else attributes
        slot.append(text)
    return SemanticRoles(product=" ".join(products), brand=" ".join(brands), attributes=attributes).normalised()


def spans(tokens: Sequence[str], labels: Sequence[str]) -> list[tuple[str, str]]:
    """The (kind, text) spans that BIO labels mark; an I- after another kind or after O opens a span, as a B- does."""
    found: list[tuple[str, list[str]]] = []
    before = ""
    for token, label in zip(tokens, labels, strict=True):
        mark, _, kind = label.partition("-")
        if label != "O" and (mark not in ("B", "I") or not kind):
            raise ValueError(f"label {label!r}")
        if mark == "B" or (mark == "I" and kind != before):
            found.append((kind, [token]))
        elif mark == "I":
            found[-1][1].append(token)
        before = kind
    return [(kind, " ".join(words)) for kind, words in found]


def held_out(query: str) -> bool:
    """Whether a query (in normal form) measures and so may never train: one in five, by its hash."""
    return int(digest("queryner", query), 16) % HELD_OUT == 0


def _lines(train: Path) -> Iterator[tuple[int, str]]:
    try:
        with train.open(encoding="utf-8") as file:
            yield from ((place, line) for place, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the queries {train} can't be read: {error}") from None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write gold.jsonl, Stillhouse's held-out gold, from a QueryNER file.")
    parser.add_argument("train", type=Path, help="QueryNER's train.jsonl; it is also the log")
    parser.add_argument("folder", type=Path, help="where gold.jsonl goes")
    options = parser.parse_args()
    try:
        counts = write_gold(options.train, options.folder)
    except StillhouseError as error:
        raise SystemExit(f"queryner: {error}") from None
    print(f"{counts.gold} of {counts.queries} distinct queries are gold: {options.folder / 'gold.jsonl'}")


if __name__ == "__main__":
    main()
