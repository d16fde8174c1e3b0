"""Stage: the log, to distinct queries with traffic and band."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from flows.night import Night
from teacher.log import bands, ingest


def ingest_log(night: Night) -> dict[str, int]:
    """Record the night's queries; returns what the log held: rows, rows dropped by reason, queries."""
    log = night.settings.log
    columns = {"query": log.query, "time": log.time, "count": log.count}
    found = ingest(Path(str(log.path)), columns, log.half_life_days)
    traffic = np.asarray(found.queries["traffic"])
    queries = found.queries.append_column("night", pa.array([night.id] * len(traffic), pa.string()))
    queries = queries.append_column("band", pa.array(bands(traffic, night.settings.cache.head_share), pa.string()))
    night.warehouse.set_queries(night.id, queries)
    counts = found.counts()
    dropped = sum(count for name, count in counts.items() if name.startswith("dropped"))
    night.screen.say(f"  {counts['rows']:,} rows, {dropped:,} dropped, {counts['queries']:,} distinct queries")
    return counts
