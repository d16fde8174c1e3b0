r"""Real queries for Stillhouse: QueryNER's right answers, some to learn from and some held out for measuring.

    python -m demo.queryner TRAIN.jsonl FOLDER
    stillhouse night --log TRAIN.jsonl --set gold.path=FOLDER/gold.jsonl --catalogue …

    python -m demo.queryner TRAIN.jsonl FOLDER --test DEV.jsonl
    python -m demo.base_for demo.queryner_tasks:QueryNer FOLDER/base
    stillhouse train --task demo.queryner_tasks:QueryNer --data FOLDER/spans/train.jsonl --gold FOLDER/spans/test.jsonl \
        --set student.base=FOLDER/base
    stillhouse evaluate --task demo.queryner_tasks:QueryNer --data FOLDER/spans/test.jsonl

QueryNER (Palen-Michel et al., LREC-COLING 2024) marks 17 kinds of span in real Amazon queries, token by token (BIO).

FOLDER gets gold.jsonl: query, product, brand and attributes, for every fifth distinct query by a stable hash. Those are
held out, so they never train. TRAIN.jsonl is the log as it is (column `query`, a row an event) and is copied nowhere.
The 17 kinds collapse to three slots: core_product_type and product_name are the product, creator is the brand, and
every other kind is an attribute. Spans of one product or brand are joined by a space in the order of the query.

With --test it also gets spans/ and collapsed/: train.jsonl, dev.jsonl and test.jsonl each, the query and the fields of
the tasks in demo/queryner_tasks.py. The test is DEV.jsonl whole; dev is a tenth of TRAIN.jsonl, by the hash that splits
what people verify, to tune on; train is the rest. What equals or is nearly a query of the test is in neither of the
other two, what is nearly one of dev is not in train (invariant 6); the command says how many those were.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from demo.queryner_tasks import QueryNer, QueryNerCollapsed
from labels.errors import InputError, StillhouseError
from labels.files import digest, write_text
from labels.normalise import normalise
from labels.semantic_roles import SemanticRoles
from labels.split import split_of
from labels.task import Task
from student.near import near_duplicates

PRODUCT = ("core_product_type", "product_name")
BRAND = ("creator",)
HELD_OUT = 5

Spans = Sequence[tuple[str, str]]


class Counts(NamedTuple):
    """Distinct queries in the file, and those of them written as gold."""

    queries: int
    gold: int


class Parts(NamedTuple):
    """Distinct queries by part, and how many of the training file are in none: equal to a test query, or nearly one of
    the test's or of dev's.
    """

    train: int
    dev: int
    test: int
    equal: int
    near: int


def write_gold(train: Path, folder: Path) -> Counts:
    """Write `folder`/gold.jsonl from a QueryNER file. Raises InputError where the file is not QueryNER's.

    Where a query comes twice its first annotation counts.
    """
    annotated = read_spans(train)
    gold = {query: semantic_roles(found) for query, found in annotated.items() if held_out(query)}
    _write(folder / "gold.jsonl", gold)
    return Counts(len(annotated), len(gold))


def write_parts(train: Path, test: Path, folder: Path) -> Parts:
    """Write train.jsonl, dev.jsonl and test.jsonl for both tasks, under `folder`/spans and `folder`/collapsed.

    Raises InputError where a file is not QueryNER's.
    """
    annotated, measuring = read_spans(train), read_spans(test)
    fresh = [query for query in annotated if query not in measuring]
    apart = _not_near(fresh, sorted(measuring))
    dev = [query for query in apart if split_of(query) == "dev"]
    learning = _not_near([query for query in apart if split_of(query) != "dev"], dev)
    for name, answer in (("spans", all_kinds), ("collapsed", three_kinds)):
        parts = {"train": (learning, annotated), "dev": (dev, annotated), "test": (measuring, measuring)}
        for part, (queries, given) in parts.items():
            _write(folder / name / f"{part}.jsonl", {query: answer(given[query]) for query in queries})
    left = len(fresh) - len(learning) - len(dev)
    return Parts(len(learning), len(dev), len(measuring), len(annotated) - len(fresh), left)


def read_spans(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The (kind, text) spans of each query, in normal form and in the query's order, from a QueryNER file.

    Where a query comes twice its first annotation counts. Raises InputError where the file is not QueryNER's.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for place, line in _lines(path):
        try:
            row = json.loads(line)
            query, marked = normalise(row["query"]), spans(row["tokens"], row["labels"])
            found.setdefault(query, [(_known(kind), normalise(text)) for kind, text in marked])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"the queries {path}, line {place}: wanted QueryNER's query, tokens and labels (one B-, I- or O a token), "
                f"got {type(error).__name__}: {error}"
            ) from None
    if not found:
        raise InputError(f"the queries {path} are empty; wanted at least one line")
    return found


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


def semantic_roles(found: Spans) -> SemanticRoles:
    """The built-in task's slots."""
    products = [text for kind, text in found if kind in PRODUCT]
    brands = [text for kind, text in found if kind in BRAND]
    others = [text for kind, text in found if kind not in PRODUCT + BRAND]
    return SemanticRoles(product=" ".join(products), brand=" ".join(brands), attributes=others).normalised()


def all_kinds(found: Spans) -> QueryNer:
    """Each of the 17 kinds apart."""
    return QueryNer(**{name: [text for kind, text in found if kind == name] for name in QueryNer.model_fields})


def three_kinds(found: Spans) -> QueryNerCollapsed:
    """The same spans under three kinds."""
    return QueryNerCollapsed(
        product_type=[text for kind, text in found if kind in PRODUCT],
        brand=[text for kind, text in found if kind in BRAND],
        attribute=[text for kind, text in found if kind not in PRODUCT + BRAND],
    )


def held_out(query: str) -> bool:
    """Whether a query (in normal form) measures and so may never train: one in five, by its hash."""
    return int(digest("queryner", query), 16) % HELD_OUT == 0


def _known(kind: str) -> str:
    if kind not in QueryNer.model_fields:
        raise ValueError(f"there is no kind {kind!r}; wanted one of {', '.join(QueryNer.model_fields)}")
    return kind


def _not_near(queries: Sequence[str], against: Sequence[str]) -> list[str]:
    close = near_duplicates(queries, against)
    return [query for query, near in zip(queries, close, strict=True) if not near]


def _write(path: Path, answers: Mapping[str, Task]) -> None:
    rows = [{"query": query, **answer.normalised().model_dump()} for query, answer in answers.items()]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from ((place, line) for place, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the queries {path} can't be read: {error}") from None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write QueryNER's right answers as Stillhouse reads them.")
    parser.add_argument("train", type=Path, help="QueryNER's train.jsonl; it is also the log")
    parser.add_argument("folder", type=Path, help="where gold.jsonl goes, and with --test spans/ and collapsed/")
    parser.add_argument("--test", type=Path, help="QueryNER's dev.jsonl: write train, dev and test for both tasks too")
    options = parser.parse_args()
    try:
        counts = write_gold(options.train, options.folder)
        print(f"{counts.gold} of {counts.queries} distinct queries are gold: {options.folder / 'gold.jsonl'}")
        if options.test:
            parts = write_parts(options.train, options.test, options.folder)
            print(f"{parts.train} queries to train on, {parts.dev} to tune on, {parts.test} to test on:", end=" ")
            print(f"{options.folder / 'spans'}, {options.folder / 'collapsed'}")
            print(f"left out: {parts.equal} that the test holds too, {parts.near} nearly one of the test's or of dev's")
    except StillhouseError as error:
        raise SystemExit(f"queryner: {error}") from None


if __name__ == "__main__":
    main()
