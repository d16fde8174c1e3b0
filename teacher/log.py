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

PERSONAL = r"\S+@\S+\.\S+|\+?\d(?:[ ().-]?\d){8,}"  # an e-mail address; nine digits or more: a phone, a card


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
    table = open_table(con, path, columns, "the log")
    with reading("the log", path):
        con.execute(f"CREATE TEMP TABLE events AS SELECT {_measures(columns, decayed)} FROM table GROUP BY text")
        rows, empty, long, personal = con.execute(
            f"""SELECT coalesce(sum(rows), 0),
                       coalesce(sum(rows) FILTER (text IS NULL OR trim(text) = ''), 0),
                       coalesce(sum(rows) FILTER (length(text) > {MAX_QUERY_CHARS}), 0),
                       coalesce(sum(rows) FILTER (length(text) <= {MAX_QUERY_CHARS}
                                                  AND regexp_matches(text, ?)), 0) FROM events""",
            [PERSONAL],
        ).fetchall()[0]
        usable = con.execute(
            f"""SELECT text, weight FROM events WHERE trim(text) <> '' AND length(text) <= {MAX_QUERY_CHARS}
                AND NOT regexp_matches(text, ?)""",
            [PERSONAL],
        ).to_arrow_table()
    if not rows:
        raise InputError(f"the log {path} is empty; wanted at least one row")
    normal = pa.array([normalise(text) for text in usable["text"].to_pylist()], pa.string())
    con.register("usable", pa.table({"query": normal, "weight": usable["weight"]}))
    queries = con.sql(
        f"""SELECT query, sum(weight) AS traffic FROM usable
            WHERE query <> '' AND length(query) <= {MAX_QUERY_CHARS} GROUP BY query ORDER BY traffic DESC, query"""
    ).to_arrow_table()
    if not queries.num_rows:
        raise InputError(f"the log {path} holds no usable query: {rows} rows, all empty, too long or personal")
    return Ingested(queries, int(rows), int(empty), int(long), int(personal))


def bands(traffic: np.ndarray, head_share: float) -> list[Band]:
    """Head, torso or tail for each query, most frequent first.

    The head is what covers `head_share` of all traffic; the torso covers half of the rest; the tail is all else.
    """
    before = (np.cumsum(traffic) - traffic) / traffic.sum()
    torso_share = head_share + (1 - head_share) / 2
    return ["head" if share < head_share else "torso" if share < torso_share else "tail" for share in before]


def _measures(columns: Mapping[str, str | None], half_life_days: float | None) -> str:
    count = "CAST(count AS DOUBLE)" if columns.get("count") else "1.0"
    if half_life_days:
        age = "date_diff('second', CAST(time AS TIMESTAMP), (SELECT max(CAST(time AS TIMESTAMP)) FROM table)) / 86400.0"
        count = f"{count} * pow(0.5, ({age}) / {float(half_life_days)})"
    return f"CAST(query AS VARCHAR) AS text, count(*) AS rows, sum({count}) AS weight"
