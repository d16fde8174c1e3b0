"""Held-out gold: right answers for some queries, from a file with a query column and one column a task field."""

import tempfile
from pathlib import Path
from typing import Any

import duckdb

from labels.errors import InputError
from labels.normalise import normalise
from labels.tables import READERS, open_table, reading
from labels.task import Task

SHOWN = 3
"""So many of the rows that contradict one another are named."""


def read_gold(path: Path, query_column: str, task: type[Task]) -> dict[str, Task]:
    """The gold answer of each query, in normal form.

    A list field may be a list, or text with items split by `;`. A query may come again with the same answer. Raises
    InputError for an unusable or empty file, and where a query comes with two answers: which is right nobody can tell.
    """
    con = duckdb.connect()
    columns: dict[str, str | None] = {"query": query_column, **{name: name for name in task.model_fields}}
    table = open_table(con, path, columns, "the gold")
    with reading("the gold", path):
        rows = table.to_arrow_table().to_pylist()
    gold, first, twice = dict[str, Task](), dict[str, int](), list[str]()
    for number, row in enumerate(rows, 1):
        query, answer = normalise(str(row["query"] or "")), _answer(task, row)
        if set(gold.setdefault(query, answer).items()) != set(answer.items()) and query:
            twice.append(f"{first[query]} and {number}")
        first.setdefault(query, number)
    gold.pop("", None)
    if twice:
        raise InputError(
            f"the gold {path} contradicts itself in {len(twice):,} rows: each gives a query another answer than a row "
            f"before it (rows {', '.join(twice[:SHOWN])}). Keep one row a query"
        )
    if not gold:
        raise InputError(f"the gold {path} holds no query; wanted at least one row")
    return gold


def find_gold(source: str, query_column: str, task: type[Task]) -> dict[str, Task]:
    """The same from a file, a folder that `datasets` saved or can load, or a dataset of the Hub by its name; `:split` after
    it names the split where it has several and none is called test.

    Raises InputError where it can't be found or read.
    """
    if Path(source).is_file() or Path(source.removesuffix(".gz")).suffix in READERS:
        return read_gold(Path(source), query_column, task)
    name, _, split = source.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{Path(name).name}.parquet"
        _split(name, split).to_parquet(file)
        return read_gold(file, query_column, task)


def _split(name: str, wanted: str) -> Any:  # noqa: ANN401 - a datasets.Dataset
    """A split of a dataset: the one wanted, else `test`, else the only one."""
    import datasets

    folder = Path(name)
    saved = any((folder / file).exists() for file in ("state.json", "dataset_dict.json"))
    try:
        found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"no data at {name}: wanted a file ({', '.join(READERS)}), a folder, or the name of a dataset on the Hub "
            "(where models are local the Hub is not asked: set HF_HUB_OFFLINE=0 and HF_DATASETS_OFFLINE=0); "
            f"{type(error).__name__}: {str(error)[:300]}"
        ) from None
    if isinstance(found, datasets.Dataset):
        return found
    chosen = wanted or ("test" if "test" in found else next(iter(found)) if len(found) == 1 else "")
    if chosen not in found:
        raise InputError(f"{name} has the splits {', '.join(found)}; name one: {name}:SPLIT")
    return found[chosen]


def _answer(task: type[Task], row: dict[str, object]) -> Task:
    values: dict[str, object] = {}
    for name in task.model_fields:
        value = row[name]
        if task.is_list(name):
            values[name] = (
                [str(item) for item in value if item is not None]
                if isinstance(value, list)
                else str(value or "").split(";")
            )
        else:
            values[name] = str(value or "")
    return task(**values).normalised()
