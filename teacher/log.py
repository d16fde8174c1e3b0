"""The query log: events to distinct queries with their traffic."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from labels.errors import InputError
from labels.normalise import MAX_QUERY_CHARS, normalise
from labels.records import Band
from labels.tables import open_table, reading

PERSONAL = r"\S+@\S+\.\S+|\+?\d(?:[ ().-]{0,3}\d){8,}"  # an e-mail address; nine digits or more: a phone, a card


@dataclass(frozen=True)
class Ingested:
    """Distinct queries, most frequent first (columns query, traffic), and what the log held."""

    queries: pa.Table
    rows: int
    dropped_empty: int
    dropped_long: int
    dropped_personal: int

    def counts(self) -> dict[str, int]:
        """Rows in, rows dropped by reason, distinct queries out."""
        counts = {name: value for name, value in asdict(self).items() if name != "queries"}
        return counts | {"queries": self.queries.num_rows}


def ingest(path: Path, columns: Mapping[str, str | None], half_life_days: float | None = None) -> Ingested:
    """Read a log file into distinct queries in normal form with their traffic.

    `columns` maps query, time and count to the file's own columns (time and count may be None: a row is one event).
    With a time column and `half_life_days`, an event's weight halves every so many days before the log's last one.
    Raises InputError for an unusable log, or one without a single usable query.
    """
    con = duckdb.connect()
    decayed = half_life_days if columns.get("time") else None
    log = open_table(con, path, columns, "the log")
    with reading("the log", path):
        log.create_view("log")
        con.execute(f"CREATE TEMP TABLE typed AS SELECT {_measures(columns, decayed)} FROM log GROUP BY text")
        huge, rows = con.execute(
            f"""SELECT coalesce(sum(rows) FILTER (length(text) > {MAX_QUERY_CHARS}), 0), coalesce(sum(rows), 0)
                FROM typed"""
        ).fetchall()[0]
        kept = con.sql(
            f"""SELECT coalesce(text, '') AS text, rows, weight FROM typed
                WHERE text IS NULL OR length(text) <= {MAX_QUERY_CHARS}"""
        ).to_arrow_table()
    if not rows:
        raise InputError(f"the log {path} is empty; wanted at least one row")
    # What to drop is judged in the normal form: full-width digits are a phone number too, a tab is no query.
    normal = pa.array([normalise(text) for text in kept["text"].to_pylist()], pa.string())
    con.register("normal", pa.table({"query": normal, "rows": kept["rows"], "weight": kept["weight"]}))
    con.execute(
        f"""CREATE TEMP TABLE judged AS SELECT *, CASE WHEN query = '' THEN 'empty'
                WHEN length(query) > {MAX_QUERY_CHARS} THEN 'long'
                WHEN regexp_matches(query, ?) THEN 'personal' ELSE 'usable' END AS fate FROM normal""",
        [PERSONAL],
    )
    by_fate = dict(con.execute("SELECT fate, sum(rows) FROM judged GROUP BY fate").fetchall())
    queries = con.sql(
        """SELECT query, sum(weight) AS traffic FROM judged WHERE fate = 'usable'
           GROUP BY query ORDER BY traffic DESC, query"""
    ).to_arrow_table()
    empty, long, personal = (int(by_fate.get(fate, 0)) for fate in ("empty", "long", "personal"))
    if not queries.num_rows:
        raise InputError(f"the log {path} holds no usable query: {rows} rows, all empty, too long or personal")
    return Ingested(queries, int(rows), empty, long + int(huge), personal)


def bands(traffic: np.ndarray, head_share: float) -> list[Band]:
    """Head, torso or tail for each query, most frequent first.

    The head is what covers `head_share` of all traffic; the torso covers half of the rest; the tail is all else.
    """
    before = (np.cumsum(traffic) - traffic) / traffic.sum()
    torso_share = head_share + (1 - head_share) / 2
    return ["head" if share < head_share else "torso" if share < torso_share else "tail" for share in before]


def _measures(columns: Mapping[str, str | None], half_life_days: float | None) -> str:
    """A row without a count is one event; one without a time is as old as the log's first."""
    count = "coalesce(CAST(count AS DOUBLE), 1.0)" if columns.get("count") else "1.0"
    if half_life_days:
        first, last = (f"(SELECT {which}(CAST(time AS TIMESTAMP)) FROM log)" for which in ("min", "max"))
        age = f"date_diff('second', coalesce(CAST(time AS TIMESTAMP), {first}), {last}) / 86400.0"
        count = f"{count} * coalesce(pow(0.5, {age} / {float(half_life_days)}), 1.0)"
    return f"CAST(query AS VARCHAR) AS text, count(*) AS rows, CAST(sum({count}) AS DOUBLE) AS weight"
