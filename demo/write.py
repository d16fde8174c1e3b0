"""Write the invented shop to disk: the catalogue and the log, and apart from them the gold.

    python -m demo.write FOLDER --rows 200000 --seed 7

FOLDER gets catalogue.parquet, log.parquet and, in gold/, held_out.parquet (a query in seven, for measuring) and
reviewer.parquet (all, for the simulated reviewer); last, manifest.json.
"""

import argparse
from pathlib import Path

import pyarrow as pa

from demo.shop import VERSION, make_log, make_shop
from labels.files import digest, read_manifest, write_manifest, write_parquet

ROWS, SEED, QUERIES = 200_000, 7, 9_000
HELD_OUT = 7


def write_demo(folder: Path, rows: int = ROWS, seed: int = SEED, queries: int = QUERIES) -> None:
    """Write the demo shop of that seed, `queries` distinct queries and a log of `rows` rows, unless it is there."""
    asked = {"generator": VERSION, "seed": seed, "rows": rows, "pool": queries}
    there = read_manifest(folder)
    if there and asked.items() <= there.items():
        return
    (folder / "manifest.json").unlink(missing_ok=True)  # what follows makes it untrue
    shop = make_shop(seed=seed, queries=queries)
    tables = {
        "catalogue.parquet": shop.catalogue,
        "log.parquet": make_log(shop, rows, seed=seed),
        "gold/reviewer.parquet": shop.pool,
        "gold/held_out.parquet": shop.pool.filter(pa.array(map(held_out, shop.pool["query"].to_pylist()))),
    }
    for name, table in tables.items():
        write_parquet(folder / name, table)
    write_manifest(folder, **asked, counts={name: table.num_rows for name, table in tables.items()})


def held_out(query: str) -> bool:
    """Whether a query's gold measures and so may never train; by its hash, so the same in every log."""
    return int(digest("held out", query), 16) % HELD_OUT == 0


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the invented shop: catalogue, log and gold.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the log (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=QUERIES, help="distinct queries (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed, another shop (default: %(default)s)")
    options = parser.parse_args()
    write_demo(options.folder, options.rows, options.seed, options.queries)


if __name__ == "__main__":
    main()
