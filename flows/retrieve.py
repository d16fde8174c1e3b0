"""Stage: catalogue facts for every query, and with them the identity its label will have."""

from pathlib import Path

import pyarrow as pa

from flows.night import Night
from labels.files import write_parquet
from labels.models import model_identity
from teacher.catalogue import read_catalogue
from teacher.label import plan
from teacher.retrieve import build_index, load_index

BATCH = 4096


def retrieve_facts(night: Night) -> dict[str, int]:
    """Write the night's requests (identity, query, facts, prompt); returns facts held and whether they were indexed."""
    settings = night.settings
    catalogue = settings.catalogue
    columns = {"title": catalogue.title, "brand": catalogue.brand, "product": catalogue.product}
    facts = read_catalogue(Path(str(catalogue.path)), columns)
    folder, built = build_index(facts, night.work / "indexes")
    index = load_index(folder)
    model = model_identity(settings.teacher.model, settings.teacher.revision)
    queries = night.queries()["query"].to_pylist()
    rows = []
    with night.screen.bar("retrieving facts", len(queries)) as advance:
        for start in range(0, len(queries), BATCH):
            batch = queries[start : start + BATCH]
            found = index.search(batch, settings.teacher.facts) if settings.teacher.facts else [[] for _ in batch]
            rows += plan(night.task, batch, found, model)
            advance(len(batch))
    columns_of = {name: [getattr(row, name) for row in rows] for name in ("identity", "query", "facts", "prompt")}
    write_parquet(night.folder / "requests.parquet", pa.table(columns_of))
    night.screen.say(f"  {len(facts):,} facts, the index {'built' if built else 'reused'}")
    return {"facts": len(facts), "index_built": int(built)}
