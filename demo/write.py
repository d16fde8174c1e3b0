"""Write the invented shop to disk: the catalogue and the log, and apart from them the gold.

    python -m demo.write FOLDER --rows 200000 --seed 7

FOLDER gets catalogue.parquet, log.parquet, gold/gold.parquet and, last, manifest.json.
"""

import argparse
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from demo.shop import VERSION, make_log, make_shop


def write_demo(folder: Path, rows: int = 200_000, seed: int = 7) -> None:
    """Write the demo shop of that seed with a log of `rows` rows; nothing to do when it is there."""
    manifest = folder / "manifest.json"
    asked = {"generator": VERSION, "seed": seed, "rows": rows}
    if manifest.exists():
        there = json.loads(manifest.read_text())
        if asked.items() <= there.items():
            return
        manifest.unlink()  # what follows makes it untrue
    shop = make_shop(seed=seed)
    tables = {
        "catalogue.parquet": shop.catalogue,
        "log.parquet": make_log(shop, rows, seed=seed),
        "gold/gold.parquet": shop.pool,
    }
    for name, table in tables.items():
        _write_table(folder / name, table)
    counts = {name: table.num_rows for name, table in tables.items()}
    _write_text(manifest, json.dumps(asked | {"counts": counts}, indent=2) + "\n")


def _write_table(path: Path, table: pa.Table) -> None:
    """A Parquet file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    pq.write_table(table, part, compression="zstd")
    os.replace(part, path)


def _write_text(path: Path, text: str) -> None:
    """A text file that is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the invented shop: catalogue, log and gold.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the log (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="another seed, another shop (default: %(default)s)")
    options = parser.parse_args()
    write_demo(options.folder, options.rows, options.seed)


if __name__ == "__main__":
    main()
