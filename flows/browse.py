"""What analysts ask of the record, without the night noticing: summaries, SQL, why a label is as it is."""

import json
from pathlib import Path
from typing import Any

import duckdb

from flows.settings import Settings
from flows.teacher import teacher_identity
from labels.errors import InputError
from labels.files import digest
from labels.normalise import normalise
from labels.prompt import messages
from labels.records import Example, label_identity
from labels.warehouse import Warehouse

Rows = list[dict[str, Any]]


def warehouse_of(settings: Settings) -> Warehouse:
    """The record of the work folder. Raises InputError where nothing was labelled yet."""
    warehouse = Warehouse(settings.folder / "warehouse")
    if not (warehouse.folder / "labels").is_dir():
        raise InputError(
            f"no labels under {settings.folder} yet; run `make demo`, or `stillhouse night`, or give --work"
        )
    return warehouse


def summary(settings: Settings) -> Rows:
    """Labels by task, model and status: how many, since when, how sure, how many reviewed."""
    return run_sql(
        settings,
        """SELECT l.task, l.model, l.status, count(*) AS labels, count(v.identity) AS reviewed,
                  left(min(l.created), 16) AS first, left(max(l.created), 16) AS last, count(DISTINCT l.night) AS nights
           FROM labels l LEFT JOIN (SELECT DISTINCT identity FROM verdicts) v USING (identity)
           GROUP BY ALL ORDER BY ALL""",
    )


def run_sql(settings: Settings, sql: str) -> Rows:
    """The rows of a query over the views labels, verdicts and queries. Raises InputError on bad SQL."""
    with warehouse_of(settings).connect() as con:
        try:
            relation = con.sql(sql)
            return relation.to_arrow_table().to_pylist() if relation else []
        except duckdb.Error as error:
            tables = "labels, verdicts and queries"
            raise InputError(
                f"that SQL did not run: {error}. The views are {tables}; DESCRIBE labels lists columns"
            ) from None


def explain(settings: Settings, query: str) -> Rows:
    """Every label held for a query, the newest first, and whether a night as set now would ask again, and why."""
    wanted = normalise(query)
    if not wanted:
        raise InputError('wanted a query after why, such as: stillhouse labels why "oat milk"')
    with warehouse_of(settings).connect() as con:
        held = con.sql("SELECT * FROM labels WHERE query = ? ORDER BY created DESC", params=[wanted]).to_arrow_table()
        verdicts = con.sql("SELECT * FROM verdicts WHERE query = ? ORDER BY created", params=[wanted]).to_arrow_table()
    rows = held.to_pylist()
    if not rows:
        return [{"query": wanted, "why": "no label is held: it was in no log so far; the next night with it asks"}]
    verdict_of = {verdict["identity"]: verdict for verdict in verdicts.to_pylist()}
    return [_explained(settings, row, verdict_of.get(row["identity"])) for row in rows]


def night_folder(settings: Settings, night: str | None) -> Path:
    """The folder of a night that finished, the last one unless named."""
    nights = settings.folder / "nights"
    finished = sorted(path.parent.name for path in nights.glob("*/report.html"))
    if not finished:
        raise InputError(f"no night finished under {settings.folder} yet; run `make demo`, or `stillhouse night`")
    if night and night not in finished:
        raise InputError(f"no finished night {night!r}; there are: {', '.join(finished[-5:])}")
    return nights / (night or finished[-1])


def _explained(settings: Settings, row: dict[str, Any], verdict: dict[str, Any] | None) -> dict[str, Any]:
    task, facts = settings.task_class(), row["facts"] or []
    model = teacher_identity(settings)
    examples = [Example(**example) for example in row["examples"] or []]
    prompt = digest(messages(task, row["query"], facts, examples))
    changed = [
        what
        for what, now, then in (
            ("the task", (task.name, task.version()), (row["task"], row["task_version"])),
            ("the teacher", model, row["model"]),
            ("the prompt", prompt, row["prompt"]),
        )
        if now != then
    ]
    same = label_identity(task, row["query"], model, prompt) == row["identity"]
    again = (
        "held: not asked again while what is retrieved stays the same (see `stillhouse label --why`)"
        if same
        else f"asked again: {changed} changed"
    )
    reviewer = f"{verdict['reviewer']}{' (simulated)' if verdict['simulated'] else ''}" if verdict else None
    return {
        "query": row["query"],
        "status": row["status"],
        "value": row["value"],
        "confidence": json.loads(row["confidence"]),
        "reason": row["reason"],
        "facts": facts,
        "verdict": f"{verdict['decision']} by {reviewer}: {verdict['value']}" if verdict else "not reviewed",
        "model": row["model"],
        "night": row["night"],
        "why": again,
    }
