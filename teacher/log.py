"""The query log: events to distinct queries with their traffic, in DuckDB, in bounded memory, masked of what is personal.

The log is grouped by text as typed. What follows works on the distinct texts: those of plain ASCII become queries in
SQL, the others in Python, a batch at a time. Only sessions and conversions need the log's rows again.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import duckdb
import pyarrow as pa

from labels.errors import InputError, SettingsError, StillhouseError
from labels.files import fresh_folder, replacing
from labels.normalise import MAX_QUERY_CHARS, normalise
from labels.records import Band
from labels.tables import is_surrogate, open_table, reading
from teacher.privacy import SUSPECT, mask, only_masks

Columns = Mapping[str, str | None]

MEMORY = 4 << 30  # bytes DuckDB may hold; beyond them it writes to the scratch folder
BATCH = 1 << 16  # texts that are in Python's hands at a time
MAX_COUNT = 1e12  # no row stands for more events
CATEGORIES, CATEGORY_CHARS = 5, 80  # of what was converted: how many a query, how long each
DAY = 86400.0
MISSED = ["text", "times", "days"]

REASONS = {
    "miscounted": f"with a count not above 0, or above {MAX_COUNT:.0e}",
    "empty": "empty",
    "long": f"longer than {MAX_QUERY_CHARS} characters",
    "personal": "nothing but personal",
    "rare": "seen from too few sessions",
    "many": "missed less often than the most that a night takes",
}

UNLABELLED = ("rare", "personal")  # what people ask all the same, and no head will answer

# `plain_form` is `normalise` for ASCII without control characters (a test proves them equal). `hard` texts are judged in
# Python: all others, and what may be empty, too long or personal.
MACROS = rf"""
    CREATE MACRO plain_form(text) AS lower(CASE WHEN contains(text, '  ')
        THEN trim(replace(replace(replace(text, ' ', chr(1) || chr(2)), chr(2) || chr(1), ''), chr(1) || chr(2), ' '))
        ELSE trim(text) END);
    CREATE MACRO hard(text) AS strlen(text) <> length(text) OR strlen(text) > {MAX_QUERY_CHARS}
        OR regexp_matches(text, '^ *$|[\x00-\x1f\x7f]|{SUSPECT}');
"""


Misses = Mapping[str, tuple[int, int]]
"""What lookups had no answer in the cache for: by query, how often and on how many days."""


@dataclass(frozen=True)
class Missed:
    """What became of the misses: `times` = `taken`, as `queries` distinct ones, + `in_log` already + all of `dropped`."""

    times: int
    taken: int
    queries: int
    in_log: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class Ingested:
    """What a log held: `rows` = `kept` + all of `dropped` (rows by reason); `masked` are those kept with a mask.

    `sizes` and `traffic` give the distinct queries and their traffic by band, those of `missed` included. All that is the
    share `labelled` (0 to 1) of what people ask: the rest was dropped as rare or personal.
    """

    rows: int
    kept: int
    masked: int
    dropped: dict[str, int]
    sizes: dict[Band, int]
    traffic: dict[Band, float]
    missed: Missed
    labelled: float

    @property
    def queries(self) -> int:
        """Distinct queries."""
        return sum(self.sizes.values())


def ingest(
    path: str | Path,
    columns: Columns,
    out: Path,
    scratch: Path,
    night: str = "",
    half_life_days: float | None = None,
    min_sessions: int = 1,
    head_share: float = 0.98,
    misses: Misses | None = None,
    most_misses: int | None = None,
) -> Ingested:
    """Read the log's file or files into `out`, the night's distinct queries (labels.warehouse.QUERIES), most traffic first.

    `columns` maps query, time, count, session and converted to the file's own columns; all but query may be None. A
    row is one event, or as many as its count says. With a time column and `half_life_days`, an event's weight halves
    every so many days before the log's last one. With `min_sessions` above 1, queries from fewer distinct sessions are
    dropped. The head is what covers `head_share` of all traffic; the torso covers half of the rest.

    `misses` go the same way where the log has not got the query: the log, exported later, holds them too. Each counts as
    an event of the log's last moment. With `min_sessions` above 1, those missed on fewer days are dropped: a miss tells no
    session, but what was missed on different days was so in different ones. Of the rest the `most_misses` most frequent
    queries come in: a robot can ask for more than a teacher can label.

    `scratch` is emptied and, at the end, removed. Raises InputError for an unusable log, or one without a usable query,
    SettingsError as `check_columns` does; `out` is written whole or not at all.
    """
    check_columns(columns, min_sessions)
    used = dict(columns) | ({} if half_life_days else {"time": None}) | ({} if min_sessions > 1 else {"session": None})
    with reading("the log", path), _database(scratch) as con:
        rows = _group_texts(con, path, used, half_life_days)
        _judge_texts(con)
        _group_queries(con)
        if min_sessions > 1:
            _drop_rare(con, min_sessions)
        if used.get("converted"):
            _group_conversions(con)
        kept, masked, dropped, traffic, unlabelled = _fates(con, path, rows)
        missed = _add_misses(con, misses or {}, min_sessions, most_misses)
        traffic += missed.taken
        with replacing(out) as unfinished:
            bands = _write(con, unfinished, night, traffic, head_share)
    sizes: dict[Band, int] = {band: bands.get(band, (0, 0.0))[0] for band in get_args(Band)}
    shares: dict[Band, float] = {band: bands.get(band, (0, 0.0))[1] for band in get_args(Band)}
    return Ingested(rows, kept, masked, dropped, sizes, shares, missed, traffic / (traffic + unlabelled))


def check_columns(columns: Columns, min_sessions: int) -> None:
    """Raise SettingsError where queries from few sessions are to be kept out and no column tells the sessions."""
    if min_sessions > 1 and not columns.get("session"):
        raise SettingsError(
            f"log.min_sessions = {min_sessions} needs the sessions; name their column: --set log.session=COLUMN"
        )


@contextmanager
def _database(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory, up to a limit. What it must put on disk is enciphered, for the owner alone, and removed."""
    fresh_folder(scratch).chmod(0o700)
    memory = min(MEMORY, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    con = duckdb.connect(config={"temp_directory": str(scratch), "memory_limit": f"{memory >> 20}MiB"})
    # DuckDB's better cipher is an extension that it downloads; the one it carries has poorer random numbers.
    con.execute("SET force_mbedtls_unsafe = true; SET temp_file_encryption = true; SET enable_progress_bar = false")
    con.execute(f"SET TimeZone = 'UTC'; {MACROS}")
    try:
        yield con
    except duckdb.Error as error:
        if "No space left" in str(error) or "max_temp_directory_size" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch)) from error
        raise
    finally:
        con.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _group_texts(con: duckdb.DuckDBPyConnection, path: str | Path, columns: Columns, half_life: float | None) -> int:
    """Make `typed`, the log's rows, and `events`: each text as typed, with its rows and weight; returns all rows."""
    for mended in (False, True):
        open_table(con, path, columns, "the log", repair=mended).create_view("log", replace=True)
        try:
            decay = _decay(con, columns, half_life) if half_life and columns.get("time") else "1.0"
            con.execute(f"CREATE OR REPLACE VIEW typed AS {_typed(columns, decay)}")
            con.execute(
                """CREATE TABLE events AS SELECT text, counted, count(*) AS rows, CAST(sum(weight) AS DOUBLE) AS weight
                   FROM typed GROUP BY ALL"""
            )
            break
        except duckdb.ConversionException:
            _explain(con, columns)
            raise
        except duckdb.Error as error:
            if mended or not is_surrogate(error):
                raise
    [(rows,)] = con.execute("SELECT coalesce(sum(rows), 0)::BIGINT FROM events").fetchall()
    if not rows:
        raise InputError(f"the log {path} is empty; wanted at least one row")
    return int(rows)


def _typed(columns: Columns, decay: str) -> str:
    """The log's rows: text (no longer than tells that it is too long), whether the count can be, weight."""
    count = "coalesce(CAST(count AS DOUBLE), 1.0)" if columns.get("count") else "1.0"
    cut = f"CASE WHEN strlen(query) <= {MAX_QUERY_CHARS} THEN query ELSE left(query, {MAX_QUERY_CHARS + 1}) END"
    taken = [f"coalesce({cut}, '') AS text", f"{count} * {decay} AS weight"]
    taken += [f"{count} > 0 AND {count} <= {MAX_COUNT} AS counted" if columns.get("count") else "true AS counted"]
    if columns.get("session"):
        taken += ["nullif(CAST(session AS VARCHAR), '') AS session"]
    if columns.get("converted"):
        taken += [f"left(CAST(converted AS VARCHAR), {4 * CATEGORY_CHARS}) AS category"]
    return f"SELECT {', '.join(taken)} FROM (SELECT * REPLACE (CAST(query AS VARCHAR) AS query) FROM log)"


def _decay(con: duckdb.DuckDBPyConnection, columns: Columns, half_life_days: float | None) -> str:
    """An event's weight by its age, in SQL. One without a time is as old as the log's first."""
    [(first, last, shown)] = con.execute(
        "SELECT epoch(min(t)), epoch(max(t)), CAST(max(t) AS VARCHAR) FROM (SELECT CAST(time AS TIMESTAMP) AS t FROM log)"
    ).fetchall()
    if shown is None:
        return "1.0"
    if first is None or last is None or last > time.time() + DAY:
        raise InputError(
            f"the log's column {columns['time']!r} holds {shown if first is not None else '-infinity'}; wanted times that "
            "have been: an event's weight is reckoned back from the last one"
        )
    return (
        f"pow(0.5, ({last} - coalesce(epoch(CAST(time AS TIMESTAMP)), {first})) / {DAY * float(half_life_days or 1)})"
    )


def _explain(con: duckdb.DuckDBPyConnection, columns: Columns) -> None:
    """Raise InputError for the first value that is no time or no count."""
    for name, kind, wanted in (("time", "TIMESTAMP", "2026-11-21 09:20:28"), ("count", "DOUBLE", "3")):
        if columns.get(name):
            found = con.execute(
                f"""SELECT left(CAST({name} AS VARCHAR), 40) FROM log
                    WHERE {name} IS NOT NULL AND TRY_CAST({name} AS {kind}) IS NULL LIMIT 1"""
            ).fetchone()
            if found:
                raise InputError(
                    f"the log's column {columns[name]!r} holds {found[0]!r}, which is no {name}; wanted such as {wanted}"
                )


def _judge_texts(con: duckdb.DuckDBPyConnection) -> None:
    """Make `forms`: the query, fate and mask of each text that SQL can't judge."""
    con.execute("CREATE TABLE forms (text VARCHAR, form VARCHAR, reason VARCHAR, masked BOOLEAN)")
    _through_python(con, "SELECT DISTINCT text FROM events WHERE hard(text)", judge, "forms")


def _judged(source: str) -> str:
    """The rows of `source` with their query, whether it is masked, and their fate: NULL, or why they are dropped."""
    return f"""(SELECT given.* EXCLUDE (text, counted), coalesce(form, plain_form(given.text)) AS query, masked,
            CASE WHEN counted THEN reason ELSE 'miscounted' END AS fate
        FROM {source} AS given LEFT JOIN forms ON given.text = forms.text)"""


def judge(text: str) -> tuple[str, str | None, bool]:
    """A text's query, why it is dropped (None where it is kept), and whether something in it was masked."""
    query, kinds = mask(normalise(text)) if len(text) <= MAX_QUERY_CHARS else (text, frozenset())
    if not query:
        return "", "empty", False
    if len(query) > MAX_QUERY_CHARS:
        return "", "long", False
    return ("", "personal", False) if kinds and only_masks(query) else (query, None, bool(kinds))


def _through_python(
    con: duckdb.DuckDBPyConnection, texts: str, function: Callable[[str], tuple[object, ...]], table: str
) -> None:
    """Append each text and what `function` makes of it to `table`."""
    names = [name for name, *_ in con.execute(f"DESCRIBE {table}").fetchall()]
    with con.cursor() as cursor:
        for batch in cursor.sql(texts).to_arrow_reader(BATCH):
            made = zip(*map(function, batch.column(0).to_pylist()), strict=True)
            con.register("batch", pa.table([batch.column(0), *map(pa.array, made)], names))
            con.execute(f"INSERT INTO {table} SELECT * FROM batch")


def _group_queries(con: duckdb.DuckDBPyConnection) -> None:
    """Make `queries`: each query, and those dropped by their fate, with its rows and traffic."""
    con.execute(
        f"""CREATE TABLE queries AS SELECT query, fate, sum(rows)::BIGINT AS rows, sum(weight) AS traffic,
                coalesce(sum(rows) FILTER (masked), 0)::BIGINT AS masked
            FROM {_judged("events")} GROUP BY query, fate"""
    )
    con.execute("DROP TABLE events")


def _drop_rare(con: duckdb.DuckDBPyConnection, min_sessions: int) -> None:
    """Drop queries from few sessions. 64-bit hashes stand for both: they fit in memory where 50 million texts do not."""
    con.execute(
        f"""UPDATE queries SET fate = 'rare' WHERE fate IS NULL AND hash(query) NOT IN (
            SELECT query FROM (SELECT DISTINCT hash(query) AS query, hash(session) AS session FROM {_judged("typed")}
                WHERE fate IS NULL AND session IS NOT NULL)
            GROUP BY query HAVING count(*) >= {min_sessions})"""
    )


def _group_conversions(con: duckdb.DuckDBPyConnection) -> None:
    """Make `conversions`: each query's categories of what was clicked or bought after it, the most frequent first."""
    con.execute("CREATE TABLE categories (category VARCHAR, name VARCHAR)")
    categories = "SELECT DISTINCT category FROM typed WHERE category IS NOT NULL"
    _through_python(con, categories, lambda text: (normalise(text)[:CATEGORY_CHARS].strip(),), "categories")
    con.execute(
        f"""CREATE TABLE conversions AS
            SELECT query, list({{'category': name, 'weight': weight}} ORDER BY weight DESC, name) AS converted
            FROM (SELECT query, name, sum(weight) AS weight FROM {_judged("typed")} JOIN categories USING (category)
                WHERE fate IS NULL AND name <> '' GROUP BY query, name
                QUALIFY row_number() OVER (PARTITION BY query ORDER BY sum(weight) DESC, name) <= {CATEGORIES})
            GROUP BY query"""
    )


def _fates(
    con: duckdb.DuckDBPyConnection, path: str | Path, rows: int
) -> tuple[int, int, dict[str, int], float, float]:
    """Rows kept, rows masked, rows dropped by reason, traffic kept, traffic of UNLABELLED ones.

    Raises where rows are lost or none is kept.
    """
    found = con.execute("SELECT fate, sum(rows), sum(masked), sum(traffic) FROM queries GROUP BY fate").fetchall()
    dropped = {fate: int(count) for fate, count, *_ in sorted(found, key=str) if fate}
    kept, masked, traffic = next((row[1:] for row in found if row[0] is None), (0, 0, 0.0))
    if rows != kept + sum(dropped.values()):
        raise StillhouseError(
            f"the log's rows differ from those judged, which must never be: {rows}, {kept}, {dropped}"
        )
    if not kept:
        reasons = ", ".join(f"{count} {REASONS[fate]}" for fate, count in dropped.items())
        raise InputError(f"the log {path} holds no usable query: {rows} rows, {reasons}")
    unlabelled = sum(row[3] for row in found if row[0] in UNLABELLED)
    return int(kept), int(masked), dropped, traffic, unlabelled


def _add_misses(con: duckdb.DuckDBPyConnection, misses: Misses, min_days: int, most: int | None) -> Missed:
    """Put the queries of misses that the log has not got into `queries`, the `most` most frequent of them."""
    texts = [text[: MAX_QUERY_CHARS + 1] for text in misses]
    times, days = ([told[place] for told in misses.values()] for place in (0, 1))
    table = pa.table([pa.array(texts, pa.string()), pa.array(times, pa.int64()), pa.array(days, pa.int64())], MISSED)
    con.register("given", table)
    con.execute("CREATE TABLE missed AS SELECT *, true AS counted FROM given")
    new = "SELECT DISTINCT text FROM missed WHERE hard(text) AND text NOT IN (SELECT text FROM forms)"
    _through_python(con, new, judge, "forms")
    con.execute(
        f"""CREATE TABLE missed_queries AS SELECT query, times, masked, CASE WHEN fate IS NOT NULL THEN fate
                WHEN query IN (SELECT query FROM queries WHERE fate IS NULL) THEN 'in_log'
                WHEN days < {min_days} OR query IN (SELECT query FROM queries WHERE fate = 'rare') THEN 'rare' END AS fate
            FROM (SELECT query, fate, sum(times)::BIGINT AS times, max(days) AS days,
                    coalesce(sum(times) FILTER (masked), 0)::BIGINT AS masked
                FROM {_judged("missed")} GROUP BY query, fate)"""
    )
    if most is not None:
        con.execute(
            f"""UPDATE missed_queries SET fate = 'many' WHERE fate IS NULL AND query NOT IN (
                SELECT query FROM missed_queries WHERE fate IS NULL ORDER BY times DESC, query LIMIT {most})"""
        )
    con.execute(
        """INSERT INTO queries BY NAME SELECT query, fate, times AS rows, times::DOUBLE AS traffic, masked
           FROM missed_queries WHERE fate IS NULL"""
    )
    found = con.execute("SELECT fate, sum(times), count(*) FROM missed_queries GROUP BY fate").fetchall()
    fates = {fate: (int(count), distinct) for fate, count, distinct in sorted(found, key=str)}
    taken, queries = fates.pop(None, (0, 0))
    in_log, _ = fates.pop("in_log", (0, 0))
    return Missed(sum(times), taken, queries, in_log, {fate: count for fate, (count, _) in fates.items()})


def _write(
    con: duckdb.DuckDBPyConnection, out: Path, night: str, traffic: float, head_share: float
) -> dict[Band, tuple[int, float]]:
    """Write the queries, most traffic first; returns queries and traffic by band."""
    torso_share = head_share + (1 - head_share) / 2
    made = con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'conversions'").fetchone() == (1,)
    converted = "converted" if made else "NULL::STRUCT(category VARCHAR, weight DOUBLE)[] AS converted"
    joined = "LEFT JOIN conversions USING (query)" if made else ""
    # The window is over the rows as they are sorted, so it needs no second sort and holds no rows.
    con.execute(
        f"""COPY (SELECT query, traffic, converted, {_literal(night)} AS night, CASE WHEN before < {head_share} THEN 'head'
                    WHEN before < {torso_share} THEN 'torso' ELSE 'tail' END AS band
                FROM (SELECT *, (sum(traffic) OVER (ROWS UNBOUNDED PRECEDING) - traffic) / {traffic!r} AS before
                    FROM (SELECT query, traffic, {converted} FROM queries {joined} WHERE fate IS NULL
                        ORDER BY traffic DESC, query)))
            TO {_literal(str(out))} (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"""
    )
    bands = con.execute(
        f"SELECT band, count(*), sum(traffic) FROM read_parquet({_literal(str(out))}) GROUP BY band"
    ).fetchall()
    return {band: (count, traffic) for band, count, traffic in bands}


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
