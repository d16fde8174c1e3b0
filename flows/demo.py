"""`make demo`: the invented shop's night, then a head query, a misspelt one and a tail query looked up."""

import time
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.markup import escape

from demo.write import write_demo
from flows.nightly import run_night
from flows.online import look_up
from flows.screen import Screen
from flows.settings import Settings
from flows.tables import night_table
from labels.warehouse import Warehouse

COMMANDS = (
    'stillhouse lookup "verdant machine smoothie"',
    "stillhouse report",
    "stillhouse review",
    "stillhouse compare",
    'stillhouse labels "SELECT status, count(*) FROM labels GROUP BY status"',
)


def run_demo(settings: Settings, rows: int, queries: int) -> bool:
    """Write the shop, run the night, look three queries up, say what to try next; whether a release was published."""
    out, start = Console(highlight=False), time.perf_counter()
    screen = Screen()
    screen.say(
        f"[bold]an invented shop[/]: {rows:,} searches, {queries:,} different ones; all state in {settings.folder}"
    )
    write_demo(settings.folder / "shop", rows=rows, queries=queries)
    with ExitStack() as services:
        summary = run_night(settings, screen, services)
        out.print(night_table(summary, settings))
        if not summary["published"]:
            return False
        for query in examples(settings, summary):
            show_lookup(out, look_up(settings, query))
    out.print(f"\ndone in {time.perf_counter() - start:.0f} s. Try next (in .venv/bin, or after . .venv/bin/activate):")
    for command in COMMANDS:
        out.print(f"  {escape(command)}")
    return True


def examples(settings: Settings, summary: dict[str, Any]) -> list[str]:
    """The first head query the cache holds; and, where the student was served this night, one of the torso and the tail."""
    with Warehouse(settings.folder / "warehouse").connect() as con:
        rows = con.execute(
            """SELECT band, arg_max(query, traffic) FROM queries
               WHERE night = ? AND (band <> 'head' OR query IN (SELECT query FROM labels WHERE status = 'accepted'))
               GROUP BY band""",
            [summary["night"]],
        ).fetchall()
    first = dict(rows)
    wanted = ["head", "torso", "tail"] if summary["asked_student"] else ["head"]
    return [first[band] for band in wanted if band in first]


def show_lookup(out: Console, answer: dict[str, Any]) -> None:
    """One line an answer."""
    value = answer["value"] if answer["value"] else answer["reason"]
    out.print(
        f"  lookup [bold]{escape(answer['query'])}[/] → {escape(str(value))}  "
        f"[cyan]{answer['source']}[/], {answer['milliseconds']:.1f} ms"
    )
