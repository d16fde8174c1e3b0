"""The warehouse: Parquet files that are only ever added, the verdicts, and DuckDB views over both.

A chunk of labels is one file, written whole or not at all; readers never meet half of one and never wait for a
writer (invariants 2 and 10). `connect` gives an in-memory DuckDB with the views, so no file is locked either.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from labels.files import digest, write_parquet
from labels.records import Example, Label, Verdict
from labels.verdicts import Verdicts

LABELS = pa.schema(
    [
        ("identity", pa.string()),
        ("query", pa.string()),
        ("status", pa.string()),
        ("value", pa.string()),
        ("confidence", pa.string()),
        ("reason", pa.string()),
        ("raw", pa.string()),
        ("facts", pa.list_(pa.string())),
        ("task", pa.string()),
        ("task_version", pa.string()),
        ("model", pa.string()),
        ("prompt", pa.string()),
        ("night", pa.string()),
        ("tokens_in", pa.int32()),
        ("tokens_out", pa.int32()),
        ("tokens_cached", pa.int32()),
        ("scores", pa.list_(pa.float32())),
        ("examples", pa.list_(pa.struct([("query", pa.string()), ("value", pa.string()), ("score", pa.float32())]))),
        ("guardrail", pa.string()),
        ("figure", pa.float64()),
        ("threshold", pa.float64()),
        ("samples", pa.int32()),
        ("agreement", pa.string()),
        ("attempts", pa.int32()),
        ("created", pa.string()),
    ]
)
VERDICTS = pa.schema(
    [
        ("identity", pa.string()),
        ("query", pa.string()),
        ("reviewer", pa.string()),
        ("decision", pa.string()),
        ("value", pa.string()),
        ("simulated", pa.bool_()),
        ("draft", pa.string()),
        ("part", pa.string()),
        ("note", pa.string()),
        ("seconds", pa.float64()),
        ("task", pa.string()),
        ("task_version", pa.string()),
        ("id", pa.string()),
        ("created", pa.string()),
    ]
)
QUERIES = pa.schema(
    [
        ("query", pa.string()),
        ("traffic", pa.float64()),
        ("converted", pa.list_(pa.struct([("category", pa.string()), ("weight", pa.float64())]))),
        ("night", pa.string()),
        ("band", pa.string()),
    ]
)
FILES = {"labels": LABELS, "queries": QUERIES}


class Warehouse:
    """The labels, verdicts and queries under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = Verdicts(folder / "verdicts.sqlite")

    def add_labels(self, labels: Sequence[Label]) -> None:
        """Commit one chunk of labels: after this call they are durable, before it none of them exists."""
        if labels:
            chunk = digest([label.identity for label in labels], labels[0].created)
            rows = pa.Table.from_pylist([_label_row(label) for label in labels], LABELS)
            write_parquet(self.folder / "labels" / f"{chunk}.parquet", rows)

    def add_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Commit verdicts; durable when this returns (invariant 5)."""
        self.said.add(verdicts)

    def queries_file(self, night: str) -> Path:
        """Where a night's queries lie, columns as in QUERIES; the log's reader writes it."""
        return self.folder / "queries" / f"{night}.parquet"

    def identities(self) -> set[str]:
        """The identities of all labels held: what need not be asked again."""
        return {row[0] for row in self.connect(verdicts=False).execute("SELECT identity FROM labels").fetchall()}

    def labels(self, identities: Iterable[str]) -> list[Label]:
        """The labels of these identities, in their order; unknown ones are left out."""
        wanted = list(identities)
        with self.connect(verdicts=False) as con:
            con.register("wanted", pa.table({"identity": wanted}))
            table = con.sql("SELECT l.* FROM labels l SEMI JOIN wanted w USING (identity)").to_arrow_table()
        found = {row["identity"]: _label(row) for row in table.to_pylist()}
        return [found[identity] for identity in wanted if identity in found]

    def verdicts(self) -> list[Verdict]:
        """One verdict a label, oldest first: what counts of all that was said of it (`labels.verdicts.settle`)."""
        return self.said.settled()

    def connect(self, verdicts: bool = True) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the views `labels` and `queries`, and `verdicts`, which are read for it at once."""
        con = duckdb.connect()
        if verdicts:
            con.register("verdicts", pa.Table.from_pylist([_row(verdict) for verdict in self.said.all()], VERDICTS))
        for name, schema in FILES.items():
            con.register(f"no_{name}", schema.empty_table())
            files = sorted(str(path) for path in (self.folder / name).glob("*.parquet"))
            held = ""
            if files:  # files of an earlier version may lack columns: those are NULL
                quoted = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
                held = f" UNION ALL BY NAME SELECT * FROM read_parquet([{quoted}], union_by_name = true)"
            con.execute(f"CREATE VIEW {name} AS SELECT * FROM no_{name}{held}")
        return con


def _row(record: Label | Verdict) -> dict[str, object]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _label_row(label: Label) -> dict[str, object]:
    row = _row(label)
    row |= {name: json.dumps(getattr(label, name)) for name in ("confidence", "agreement")}
    return row | {"examples": [asdict(example) for example in label.examples]}


def _label(row: dict[str, Any]) -> Label:
    row |= {name: json.loads(row[name] or "{}") for name in ("confidence", "agreement")}
    row |= {name: tuple(row[name] or ()) for name in ("facts", "scores")}
    row["examples"] = tuple(Example(**example) for example in row["examples"] or ())
    row |= {name: row[name] or absent for name, absent in (("guardrail", ""), ("samples", 1), ("attempts", 1))}
    return Label(**row | {"tokens_cached": row["tokens_cached"] or 0})
