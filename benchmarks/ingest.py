"""Reading a log: Stillhouse's ingest against the bare DuckDB aggregation query, and its memory at 50 million rows.

The bare query groups the same file by its text as typed, with the same count and decay, into a table, in a connection of
its own: no normal form, no masks, no order, no file written. `bare_written` also sorts and writes its result, as ingest
must. Two logs of a million rows: the invented shop's (33,000 texts), and one of mostly rare queries (440,000 texts), of
which a few hold accents, e-mail addresses or telephones.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from demo.shop import make_log, make_shop
from teacher.log import ingest

ROWS, ROUNDS, HALF_LIFE = 1_000_000, 5, 14.0
WORDS = ["".join(pair) for pair in product([c + v for c in "bcdfglmnprstv" for v in "aeiou"], repeat=2)]
TIMED = {"query": "query", "time": "time"}
COUNTED = {**TIMED, "count": "count"}


def run(rows: int = 50_000_000, rounds: int = ROUNDS) -> dict[str, float]:
    """Speeds as ratios to the bare query's: median over the rounds, with the least and the greatest; peak GiB at `rows`."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        shop, rare = Path(folder) / "shop.parquet", Path(folder) / "rare.parquet"
        pq.write_table(make_log(make_shop(), ROWS), shop, row_group_size=122_880)
        write_rare(rare, ROWS)
        figures |= _compare(shop, TIMED, rounds, "")
        figures |= _compare(rare, COUNTED, rounds, "_rare")
    with tempfile.TemporaryDirectory() as folder:
        write_rare(Path(folder) / "rare.parquet", rows)
        figures |= {"rows": rows} | _in_a_process(folder, "1", "")
        figures |= _in_a_process(folder, "2", "_sessions")
    return figures


def write_rare(path: Path, rows: int) -> None:
    """A log whose queries' frequency falls as one over their rank, of 30 million possible ones."""
    words = f"[{', '.join(repr(word) for word in WORDS)}]"
    word = "getvariable('words')[1 + (h // {}) % " + f"{len(WORDS)}]"
    with duckdb.connect(config={"memory_limit": "4GiB", "temp_directory": str(path.parent)}) as con:
        con.execute(f"SET preserve_insertion_order = false; SET VARIABLE words = {words}; SELECT setseed(0.5)")
        con.execute(
            f"""COPY (WITH ranks AS (SELECT floor(pow(3e7, random()))::BIGINT AS k, random() AS v, random() AS t
                    FROM range({rows})),
                hashed AS (SELECT *, (hash(k) & 9223372036854775807)::BIGINT AS h FROM ranks),
                texts AS (SELECT *, concat_ws(' ', {word.format(1)}, {word.format(8192)},
                    CASE WHEN h % 3 > 0 THEN {word.format(67108864)} END,
                    CASE WHEN h % 5 = 0 THEN (h % 997)::VARCHAR WHEN h % 33 = 1 THEN 'café'
                        WHEN h % 400 = 7 THEN 'jo' || k || '@example.com'
                        WHEN h % 400 = 8 THEN '555 010 ' || (1000 + h % 9000) END) AS text FROM hashed)
                SELECT CASE WHEN v < 0.7 THEN text WHEN v < 0.9 THEN upper(text[1]) || text[2:] WHEN v < 0.95 THEN text || ' '
                    ELSE upper(text) END AS query, TIMESTAMP '2026-10-01' + to_seconds((t * 2419200)::BIGINT) AS time,
                    hash(v, t) % {rows // 5} AS session, 1 + (v * 1000)::INT % 3 AS count
                FROM texts) TO '{path}' (FORMAT parquet)"""
        )


def bare(path: Path, columns: dict[str, str], out: Path | None = None) -> None:
    """The aggregation alone; with `out`, its result sorted and written."""
    count = "count *" if "count" in columns else ""
    query = f"""SELECT query, sum({count} pow(0.5, (last - epoch(time)) / {86400 * HALF_LIFE})) AS traffic
        FROM '{path}', (SELECT epoch(max(time)) AS last FROM '{path}') GROUP BY query"""
    with duckdb.connect() as con:
        if out:
            con.execute(f"COPY ({query} ORDER BY traffic DESC) TO '{out}' (FORMAT parquet, COMPRESSION zstd)")
        else:
            con.execute(f"CREATE TABLE queries AS {query}")


def _compare(log: Path, columns: dict[str, str], rounds: int, name: str) -> dict[str, float]:
    out, scratch = log.with_suffix(".out"), log.with_suffix(".scratch")
    contenders = (
        lambda: bare(log, columns),
        lambda: bare(log, columns, out),
        lambda: ingest(log, columns, out, scratch, half_life_days=HALF_LIFE),
    )
    times = [[_seconds(contender) for contender in contenders] for _ in range(rounds + 1)][
        1:
    ]  # the first warms the disk
    ratios = [without / ours for without, _, ours in times]
    return {
        f"ingest{name}_vs_duckdb": round(statistics.median(ratios), 3),
        f"ingest{name}_vs_duckdb_least": round(min(ratios), 3),
        f"ingest{name}_vs_duckdb_greatest": round(max(ratios), 3),
        f"ingest{name}_vs_bare_written": round(statistics.median(written / ours for _, written, ours in times), 3),
        f"rows_per_s{name}": round(ROWS / statistics.median(ours for *_, ours in times)),
    }


def _seconds(contender: Callable[[], object]) -> float:
    start = time.perf_counter()
    contender()
    return time.perf_counter() - start


def _in_a_process(folder: str, min_sessions: str, name: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.ingest", folder, min_sessions]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return {f"{key}{name}": value for key, value in json.loads(done.stdout.splitlines()[-1]).items()}


def _peak(folder: str, min_sessions: str) -> dict[str, float]:
    log, out = Path(folder) / "rare.parquet", Path(folder) / "out.parquet"
    columns = COUNTED | {"session": "session"}
    start = time.perf_counter()
    found = ingest(
        log, columns, out, Path(folder) / "scratch", half_life_days=HALF_LIFE, min_sessions=int(min_sessions)
    )
    seconds = time.perf_counter() - start
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {
        "peak_gib": round(int(peak.split()[1]) / 2**20, 2),
        "peak_s": round(seconds, 1),
        "peak_queries": found.queries,
    }


if __name__ == "__main__":
    print(json.dumps(_peak(*sys.argv[1:])), flush=True)
