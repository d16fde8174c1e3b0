"""Reading a team's own files: Parquet, CSV (any delimiter) or JSON lines, by DuckDB, columns named by settings."""

import csv
import difflib
import gzip
from collections.abc import Mapping
from pathlib import Path

import duckdb

from labels.errors import InputError

READERS = {
    ".parquet": "read_parquet({path})",
    ".csv": "read_csv({path}, header = true, all_varchar = true{delim})",
    ".tsv": "read_csv({path}, header = true, all_varchar = true, delim = '\t')",
    ".jsonl": "read_json({path}, format = 'newline_delimited', maximum_object_size = 67108864)",
    ".ndjson": "read_json({path}, format = 'newline_delimited', maximum_object_size = 67108864)",
}


def open_table(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Mapping[str, str | None], what: str
) -> duckdb.DuckDBPyRelation:
    """A relation over the file with `columns` (our name -> the file's name; None leaves a column out).

    `what` ("the log") names the file in messages. Raises InputError where the file is missing, unreadable, of an
    unknown kind or lacks a column.
    """
    kind = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if kind not in READERS:
        raise InputError(
            f"{what} {path}: wanted {', '.join(READERS)} (or .gz of a text one), got {kind or 'no ending'}"
        )
    if not path.is_file():
        raise InputError(f"{what} {path}: there is no such file; check the path")
    if not path.stat().st_size:
        raise InputError(f"{what} {path} is empty; wanted at least the columns {', '.join(_named(columns))}")
    delim = _delimiter(path, _named(columns)) if kind == ".csv" else ""
    source = READERS[kind].format(path="'" + _literal(str(path)).replace("'", "''") + "'", delim=delim)
    with reading(what, path):
        table = con.sql(f"SELECT * FROM {source}")
    wanted = {ours: theirs for ours, theirs in columns.items() if theirs}
    types = dict(zip(table.columns, map(str, table.types), strict=True))
    for ours, theirs in wanted.items():
        if theirs not in table.columns:
            raise InputError(_no_column(what, path, ours, theirs, table.columns))
    # Where JSON lines mix types, DuckDB gives JSON: `->>` takes the text without its quotes.
    taken = {ours: f'"{_quoted(it)}"' + (" ->> '$'" if types[it] == "JSON" else "") for ours, it in wanted.items()}
    return table.project(", ".join(f'{source} AS "{ours}"' for ours, source in taken.items()))


class reading:
    """Turns DuckDB's errors inside the block into one InputError that names the file."""

    def __init__(self, what: str, path: Path) -> None:
        self.what, self.path = what, path

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Raise the InputError for a DuckDB error; let anything else through."""
        if isinstance(error, duckdb.Error):
            text = str(error)
            lines = [
                line for line in text.splitlines() if line.strip(" ^") and not line.startswith(("Original", "LINE"))
            ]
            first = " ".join(line[:200] for line in lines[:2])
            hint = "; it holds bytes that are not UTF-8: convert it first (iconv -f latin1 -t utf-8)"
            broken = "utf" in text.lower() or "unicode" in text.lower() or "encod" in text.lower()
            raise InputError(f"{self.what} {self.path} can't be read: {first}{hint if broken else ''}") from error


def _no_column(what: str, path: Path, ours: str, theirs: str, there: list[str]) -> str:
    near = difflib.get_close_matches(theirs, there, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    setting = what.split()[-1]
    return (
        f"{what} {path} has no column {theirs!r}{guess} It has: {', '.join(there)}. "
        f"Name the right one: --set {setting}.{ours}=COLUMN"
    )


def _named(columns: Mapping[str, str | None]) -> list[str]:
    return [theirs for theirs in columns.values() if theirs]


def _delimiter(path: Path, wanted: list[str]) -> str:
    """The delimiter that gives a CSV's header all of `wanted`; DuckDB's sniffer takes "oat; milk" for two columns."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
            header = file.readline(1 << 16)
    except OSError:
        return ""  # not gzip at all: DuckDB says so
    for delimiter in (",", "\t", ";", "|"):
        if set(wanted) <= {name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])}:
            only = "\x1f" if delimiter not in header else delimiter  # one column: every line is one value
            return f", skip = 0, delim = '{only}'"
    return ""


def _literal(path: str) -> str:
    """The path as it is: DuckDB takes `*`, `?` and `[` for patterns."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)


def _quoted(name: str) -> str:
    return name.replace('"', '""')
