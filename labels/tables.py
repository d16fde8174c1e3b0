"""Reading a team's own files: Parquet, CSV (any delimiter) or JSON lines, by DuckDB, columns named by settings."""

import csv
import difflib
import glob
import gzip
import zlib
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


# JSON lines as text, with U+FFFD for half a surrogate pair (a log that cut an emoji in two). Escaped backslashes and
# whole pairs are set aside first, under control characters that no JSON line may hold.
MENDED = r"""(SELECT replace(replace(regexp_replace(regexp_replace(replace(line, '\\', chr(30)),
        '\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)', chr(29) || '\1' || chr(29) || '\2', 'g'),
        '\\u[dD][89a-fA-F]..', '\\ufffd', 'g'), chr(29), '\u'), chr(30), '\\') AS line
    FROM read_csv({path}, columns = {{'line': 'VARCHAR'}}, auto_detect = false, header = false, delim = chr(31), quote = '',
        escape = '', max_line_size = 67108864) WHERE trim(line) <> '')"""


def open_table(
    con: duckdb.DuckDBPyConnection, path: str | Path, columns: Mapping[str, str | None], what: str, repair: bool = False
) -> duckdb.DuckDBPyRelation:
    """A relation over the file or files with `columns` (our name -> the file's name; None leaves a column out).

    `path` may be a pattern (`logs/2026-11-*.parquet`) of files of one kind; where a file has that very name it is meant.
    `what` ("the log") names the file in messages. `repair` reads JSON lines as text and mends broken surrogate pairs,
    which DuckDB refuses. Raises InputError where a file is missing, unreadable, of an unknown kind or lacks a column.
    """
    found = _files(path, what)
    kinds = {_kind(file, what) for file in found}
    if len(kinds) > 1:
        raise InputError(f"{what} {path} matches files of several kinds ({', '.join(sorted(kinds))}); wanted one kind")
    parts = [_select(con, file, columns, what, repair) for file in found]
    with reading(what, path):
        return con.sql(" UNION ALL ".join(parts))


def _files(path: str | Path, what: str) -> list[Path]:
    if Path(path).exists() or not any(char in "*?[" for char in str(path)):
        return [Path(path)]
    found = [file for file in map(Path, sorted(glob.glob(str(path), recursive=True))) if file.is_file()]
    if not found:
        raise InputError(f"{what} {path}: no file matches; check the pattern")
    return found


def _kind(path: Path, what: str) -> str:
    kind = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if kind not in READERS:
        raise InputError(
            f"{what} {path}: wanted {', '.join(READERS)} (or .gz of a text one), got {kind or 'no ending'}"
        )
    if not path.is_file():
        raise InputError(f"{what} {path}: there is no such file; check the path")
    return kind


def _select(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Mapping[str, str | None], what: str, repair: bool
) -> str:
    """The SELECT that gives one file's columns by our names."""
    if not path.stat().st_size:
        raise InputError(f"{what} {path} is empty; wanted at least the columns {', '.join(_named(columns))}")
    kind = _kind(path, what)
    quoted = "'" + _literal(str(path)).replace("'", "''") + "'"
    if repair and kind in (".jsonl", ".ndjson"):
        return f"SELECT {_of_lines(columns)} FROM {MENDED.format(path=quoted)}"
    delim = _delimiter(path, _named(columns)) if kind == ".csv" else ""
    source = READERS[kind].format(path=quoted, delim=delim)
    try:
        with reading(what, path):
            table = con.sql(f"SELECT * FROM {source}")
    except InputError as error:
        if is_surrogate(error) and not repair:
            return _select(con, path, columns, what, repair=True)
        raise
    types = dict(zip(table.columns, map(str, table.types), strict=True))
    taken = []
    for ours, theirs in columns.items():
        if theirs and theirs not in types:
            raise InputError(_no_column(what, path, ours, theirs, table.columns))
        if theirs:
            taken.append(f'{_value(theirs, types[theirs])} AS "{ours}"')
    return f"SELECT {', '.join(taken)} FROM {source}"


def is_surrogate(error: Exception) -> bool:
    """Whether it was half a surrogate pair in a JSON string that DuckDB would not read: open the table with `repair`."""
    return "surrogate in string" in str(error)


def _value(name: str, kind: str) -> str:
    column = f'"{_quoted(name)}"'
    if kind == "JSON":  # where JSON lines mix types; `->>` takes the text without its quotes
        return f"{column} ->> '$'"
    return f"decode({column})" if kind == "BLOB" else column  # Parquet text written without saying that it is text


def _of_lines(columns: Mapping[str, str | None]) -> str:
    def key(name: str) -> str:
        return "'/" + name.replace("~", "~0").replace("/", "~1").replace("'", "''") + "'"  # a JSON pointer, RFC 6901

    return ", ".join(f'line ->> {key(theirs)} AS "{ours}"' for ours, theirs in columns.items() if theirs)


class reading:
    """Turns DuckDB's errors inside the block into one InputError that names the file."""

    def __init__(self, what: str, path: str | Path) -> None:
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
    section = what.split()[-1]
    named = section in ("log", "catalogue") or (section, ours) == ("gold", "query")  # the others' names are fixed
    advice = f"Name the right one: --set {section}.{ours}=COLUMN" if named else f"Rename the right one to {theirs}"
    return f"{what} {path} has no column {theirs!r}{guess} It has: {', '.join(there)}. {advice}"


def _named(columns: Mapping[str, str | None]) -> list[str]:
    return [theirs for theirs in columns.values() if theirs]


def _delimiter(path: Path, wanted: list[str]) -> str:
    """The delimiter that gives a CSV's header all of `wanted`; DuckDB's sniffer takes "oat; milk" for two columns."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
            header = file.readline(1 << 16)
    except (OSError, EOFError, zlib.error):
        return ""  # no gzip, or a broken one: DuckDB says so
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
