"""Reading a team's own files: Parquet, CSV (any delimiter) or JSON lines, by DuckDB, columns named by settings."""

import difflib
from collections.abc import Mapping
from pathlib import Path

import duckdb

from labels.errors import InputError

READERS = {
    ".parquet": "read_parquet({path})",
    ".csv": "read_csv({path}, header = true, all_varchar = true)",
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
        raise InputError(f"{what} {path}: wanted {', '.join(READERS)} (or .gz of a text one), got {kind or 'no ending'}")
    if not path.is_file():
        raise InputError(f"{what} {path}: there is no such file; check the path")
    source = READERS[kind].format(path="'" + str(path).replace("'", "''") + "'")
    with reading(what, path):
        table = con.sql(f"SELECT * FROM {source}")
    wanted = {ours: theirs for ours, theirs in columns.items() if theirs}
    for ours, theirs in wanted.items():
        if theirs not in table.columns:
            raise InputError(_no_column(what, path, ours, theirs, table.columns))
    return table.project(", ".join(f'"{_quoted(theirs)}" AS "{ours}"' for ours, theirs in wanted.items()))


class reading:  # noqa: N801 - a context manager, used as `with reading(...)`
    """Turns DuckDB's errors inside the block into one InputError that names the file."""

    def __init__(self, what: str, path: Path) -> None:
        self.what, self.path = what, path

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Raise the InputError for a DuckDB error; let anything else through."""
        if isinstance(error, duckdb.Error):
            text = str(error)
            first = next((line for line in text.splitlines() if line.strip()), text)
            hint = "; it holds bytes that are not UTF-8: convert it first (iconv -f latin1 -t utf-8)"
            broken = "utf" in text.lower() or "unicode" in text.lower() or "encod" in text.lower()
            raise InputError(f"{self.what} {self.path} can't be read: {first}{hint if broken else ''}") from error


def _no_column(what: str, path: Path, ours: str, theirs: str, there: list[str]) -> str:
    near = difflib.get_close_matches(theirs, there, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    setting = what.split()[-1]
    return (
        f"{what} {path} has no column {theirs!r}{guess} It has: {', '.join(there)}. "
        f"Name the right one: --set {setting}.{ours}=COLUMN"
    )


def _quoted(name: str) -> str:
    return name.replace('"', '""')
