"""What a round adds to a dataset: the student's own answers where there was no label, and pairs where it was wrong."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from labels.errors import InputError
from labels.files import (
    MANIFEST,
    digest,
    fresh_folder,
    read_manifest,
    sha256_of,
    write_manifest,
    write_parquet,
    write_text,
)
from student.preferences import NAMES, Pair
from student.rows import Row

TRAIN, PREFERENCES = "train.parquet", "preferences.parquet"


@dataclass(frozen=True)
class Extras:
    """Rows and preference pairs (query, chosen, rejected) beside those that labels and people gave."""

    rows: Sequence[Row] = ()
    pairs: Sequence[Pair] = ()


def extend_dataset(dataset: Path, extras: Extras, root: Path) -> Path:
    """The folder of a dataset that holds `dataset` and the extras; `dataset` itself where there are none.

    A query that has a row keeps it, and one that has a pair keeps that: what labels and people said goes before what the
    student says. Raises InputError where `dataset` was never finished.
    """
    if not extras.rows and not extras.pairs:
        return dataset
    facts = read_manifest(dataset)
    if facts is None:
        raise InputError(f"the dataset {dataset} was never finished; build it before it is extended")
    folder = root / digest("extended", dataset.name, [asdict(row) for row in extras.rows], list(extras.pairs))
    if read_manifest(folder):
        return folder
    fresh_folder(folder)
    for file in dataset.iterdir():
        if file.name != MANIFEST:
            shutil.copyfile(file, folder / file.name)
    rows = _extended(folder / TRAIN, [asdict(row) for row in extras.rows])
    pairs = _extended(folder / PREFERENCES, [dict(zip(NAMES, pair, strict=True)) for pair in extras.pairs])
    counts = {"rows": rows, "pairs": pairs, "extra_rows": len(extras.rows), "extra_pairs": len(extras.pairs)}
    if (card := folder / "README.md").exists():
        said = f"{len(extras.rows):,} rows and {len(extras.pairs):,} pairs beside these came of sampling the student."
        write_text(card, card.read_text(encoding="utf-8") + f"\nA round's dataset: {said}\n")
    files = {file.name: sha256_of(file) for file in sorted(folder.glob("*.parquet"))}
    write_manifest(folder, **facts | counts | {"files": files, "parent": dataset.name})
    return folder


def _extended(file: Path, rows: Sequence[dict[str, object]]) -> int:
    """Add the rows of queries that the file does not hold yet; how many it then has."""
    table = pq.read_table(file)
    held = set(table["query"].to_pylist())
    new = [row for row in rows if row["query"] not in held]
    if new:
        table = pa.concat_tables([table, pa.Table.from_pylist(new, table.schema)]).sort_by("query")
        write_parquet(file, table)
    return int(table.num_rows)
