"""The catalogue as facts: one line a brand and product (and category), as the teacher reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from labels.errors import InputError
from labels.normalise import normalise
from labels.records import Fact
from labels.tables import is_surrogate, open_table, reading

MAX_FACT_CHARS = 80
READ_CHARS = 2000
"""Characters of a field that are read at all: enough for MAX_FACT_CHARS after normalising, whatever the white space."""
FIELDS = ("brand", "product", "title", "category")
ROWS = 65_536


@dataclass(frozen=True)
class Catalogue:
    """A catalogue's facts, each once, in a stable order; the rows it came from, and those left out, counted by why."""

    facts: list[Fact]
    rows: int
    dropped: dict[str, int]


def read_catalogue(path: Path, columns: Mapping[str, str | None]) -> Catalogue:
    """The facts of a catalogue file or files.

    `columns` maps title, brand, product, category, id to the file's own columns; title is needed, the others may be
    None or missing. Without a product the title stands in for it. Of rows with one id the first counts (rows without
    an id all do); rows with neither product nor title (no letter or
    digit) are left out. Raises InputError for an unusable or empty file.

    DuckDB leaves out the repeated rows, so that only distinct ones are normalised and held here.
    """
    try:
        return _read(path, columns, repair=False)
    except InputError as error:
        if not is_surrogate(error):
            raise
        return _read(path, columns, repair=True)


def fact_of(brand: str, product: str, title: str, category: str = "") -> Fact:
    """The fact for one product: `brand | product`, or `brand | product | category`, found by all their words."""
    return _fact(_short(brand), _short(product) or _short(title), _short(category))


def _fact(brand: str, name: str, category: str) -> Fact:
    parts = [brand, name] + ([category] if category else [])
    return Fact(line=" | ".join(parts), indexed=" ".join(part for part in parts if part))


def _read(path: Path, columns: Mapping[str, str | None], repair: bool) -> Catalogue:
    con = duckdb.connect()
    table = open_table(con, path, columns, "the catalogue", repair)
    texts = ", ".join(_text(name) if columns.get(name) else f"'' AS {name}" for name in FIELDS)
    source = f"(SELECT {texts} FROM catalogue)"
    if columns.get("id"):
        numbered = (
            f"(SELECT {texts}, nullif(trim(id::VARCHAR), '') AS id, row_number() OVER () AS place FROM catalogue)"
        )
        again = "id IS NOT NULL AND row_number() OVER (PARTITION BY id ORDER BY place) > 1"
        source = f"(SELECT * FROM {numbered} QUALIFY NOT ({again}))"
    facts: dict[str, Fact] = {}
    kept = nameless = 0
    with reading("the catalogue", path):
        table.create_view("catalogue")
        rows = con.sql("SELECT count(*) FROM catalogue").fetchall()[0][0]
        distinct = con.execute(f"SELECT {', '.join(FIELDS)}, count(*) FROM {source} GROUP BY ALL")
        while some := distinct.fetchmany(ROWS):
            for brand, product, title, category, times in some:
                kept += times
                name = _short(product) or _short(title)
                if not any(map(str.isalnum, name)):  # empty, or dashes, or what can't be seen
                    nameless += times
                    continue
                fact = _fact(_short(brand), name, _short(category))
                if facts.setdefault(fact.line, fact).indexed > fact.indexed:  # "a | b" of c, or a of "b | c"
                    facts[fact.line] = fact
    if not facts:
        raise InputError(f"the catalogue {path} holds no products; wanted at least one row with a title")
    in_order = sorted(facts.values(), key=lambda fact: fact.line)
    return Catalogue(in_order, rows, {"duplicate id": rows - kept, "no name": nameless})


def _text(name: str) -> str:
    return f"left(trim(coalesce({name}::VARCHAR, '')), {READ_CHARS}) AS {name}"


def _short(text: str) -> str:
    return normalise(text)[:MAX_FACT_CHARS].strip()
