"""Held-out gold: right answers for some queries, from a file with a query column and one column a task field."""

from pathlib import Path

import duckdb

from labels.errors import InputError
from labels.normalise import normalise
from labels.tables import open_table, reading
from labels.task import Task


def read_gold(path: Path, query_column: str, task: type[Task]) -> dict[str, Task]:
    """The gold answer of each query, in normal form.

    A list field may be a list, or text with items split by `;`. Raises InputError for an unusable or empty file.
    """
    con = duckdb.connect()
    columns: dict[str, str | None] = {"query": query_column, **{name: name for name in task.model_fields}}
    table = open_table(con, path, columns, "the gold")
    with reading("the gold", path):
        rows = table.to_arrow_table().to_pylist()
    gold = {normalise(str(row["query"] or "")): _answer(task, row) for row in rows}
    gold.pop("", None)
    if not gold:
        raise InputError(f"the gold {path} holds no query; wanted at least one row")
    return gold


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
