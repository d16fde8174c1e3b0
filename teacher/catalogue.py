"""The catalogue as facts: one line a brand and product, as the teacher reads them."""

from collections.abc import Mapping
from pathlib import Path

import duckdb

from labels.errors import InputError
from labels.normalise import normalise
from labels.records import Fact
from labels.tables import open_table, reading

MAX_FACT_CHARS = 80


def read_catalogue(path: Path, columns: Mapping[str, str | None]) -> list[Fact]:
    """The distinct facts of a catalogue file, in a stable order.

    `columns` maps title, brand, product to the file's own columns; title is needed, the others may be None. Without a
    product column the title stands in for it. Raises InputError for an unusable or empty file.
    """
    con = duckdb.connect()
    table = open_table(con, path, columns, "the catalogue")
    with reading("the catalogue", path):
        rows = table.project(
            ", ".join(
                f"coalesce({name}::VARCHAR, '') AS {name}" if columns.get(name) else f"'' AS {name}"
                for name in ("brand", "product", "title")
            )
        )
        found = rows.distinct().fetchall()
    facts = {fact_of(*row) for row in found if row[1].strip() or row[2].strip()}
    if not facts:
        raise InputError(f"the catalogue {path} holds no products; wanted at least one row with a title")
    return sorted(facts, key=lambda fact: fact.line)


def fact_of(brand: str, product: str, title: str) -> Fact:
    """The fact for one product: `brand | product`, found by both words."""
    brand, product = normalise(brand), (normalise(product) or normalise(title))[:MAX_FACT_CHARS].strip()
    return Fact(line=f"{brand} | {product}", indexed=f"{brand} {product}".strip())
