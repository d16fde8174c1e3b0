"""The night's requests on disk, so that neither planning nor labelling holds them all in memory."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from labels.files import replacing
from labels.records import Example
from labels.task import Task
from labels.warehouse import Warehouse
from teacher.plan import Request, Shown

REQUESTS = pa.schema(
    [
        ("identity", pa.string()),
        ("query", pa.string()),
        ("facts", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("examples", pa.list_(pa.struct([("query", pa.string()), ("value", pa.string()), ("score", pa.float32())]))),
        ("prompt", pa.string()),
    ]
)
BATCH = 2048
MEMORY = "200MB"  # for sorting; more spills to disk


def write_requests(path: Path, batches: Iterable[list[Request]]) -> None:
    """Write the night's requests, batch by batch; the file is there whole or not at all."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, REQUESTS, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_pylist([_row(request) for request in batch], REQUESTS))


def count_pending(path: Path, warehouse: Warehouse) -> tuple[int, int]:
    """How many requests there are, and for how many of them no label is held."""
    total: int = pq.read_metadata(path).num_rows
    with _joined(path, warehouse) as con:
        [(left,)] = con.execute("SELECT count(*) FROM requests ANTI JOIN labels USING (identity)").fetchall()
    return total, int(left)


def pending(path: Path, warehouse: Warehouse) -> Iterator[Request]:
    """The requests no label is held for; those whose prompts begin alike come one after the other.

    Prompts are alike up to the first fact or example that differs, so this order lets the engine's prefix cache find
    the facts' tokens too, even where the cache is small.
    """
    with _joined(path, warehouse) as con:
        found = con.sql("FROM requests ANTI JOIN labels USING (identity) ORDER BY facts, examples, query")
        for batch in found.to_arrow_reader(BATCH):
            yield from map(_request, batch.to_pylist())


def sample(path: Path, warehouse: Warehouse, size: int, seed: str, held: bool) -> list[Request]:
    """Up to `size` requests that a label is held for (or none is), drawn by a hash of identity and `seed`."""
    join = "SEMI" if held else "ANTI"
    with _joined(path, warehouse) as con:
        order = "ORDER BY md5(identity || ?) LIMIT ?"
        found = con.sql(f"FROM requests {join} JOIN labels USING (identity) {order}", params=[seed, size])
        return [_request(row) for row in found.to_arrow_table().to_pylist()]


def statuses(path: Path, warehouse: Warehouse, task: type[Task], night: str) -> Counter[str]:
    """How many of the requests' labels are accepted, rejected and failed; and of the accepted ones how many say nothing
    (`abstained`) and how many were made this `night` (`accepted_now`).
    """
    nothing: dict[str, Any] = {name: [] if task.is_list(name) else "" for name in task.model_fields}
    empty = task(**nothing).to_json()
    with _joined(path, warehouse) as con:
        rows = con.execute(
            """SELECT status, status = 'accepted' AND value = ?, status = 'accepted' AND l.night = ?, count(*)
               FROM requests JOIN labels l USING (identity) GROUP BY ALL""",
            [empty, night],
        ).fetchall()
    found = Counter[str]()
    for status, abstained, now, count in rows:
        found[status] += count
        found["abstained"] += count if abstained else 0
        found["accepted_now"] += count if now else 0
    return found


def _joined(path: Path, warehouse: Warehouse) -> duckdb.DuckDBPyConnection:
    con = warehouse.connect(verdicts=False)
    con.execute(f"SET memory_limit = '{MEMORY}'")
    con.execute("SET temp_directory = ?", [str(path.parent / "tmp")])
    con.execute("SET preserve_insertion_order = false; SET threads = 1")
    con.read_parquet(str(path)).create_view("requests")
    return con


def _row(request: Request) -> dict[str, object]:
    shown = request.shown
    return {
        "identity": request.identity,
        "query": request.query,
        "facts": shown.facts,
        "scores": shown.scores,
        "examples": [{"query": one.query, "value": one.value, "score": one.score} for one in shown.examples],
        "prompt": request.prompt,
    }


def _request(row: dict[str, Any]) -> Request:
    facts, scores, examples = (row[name] or () for name in ("facts", "scores", "examples"))
    shown = Shown(tuple(facts), tuple(scores), tuple(Example(**example) for example in examples))
    return Request(row["identity"], row["query"], shown, row["prompt"])
