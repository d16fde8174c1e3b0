"""The tables commands print."""

import json
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from flows.settings import Settings

SHOWN_ROWS = 200
SHOWN_CHARS = 160


def night_table(summary: dict[str, Any], settings: Settings) -> Table:
    """The night's figures."""
    table = Table(title=f"night {summary['night']}", box=box.SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = f"{summary['labelled']:,} labelled + {summary['rejected']:,} rejected + {summary['failed']:,} failed"
    table.add_row("queries in", f"{summary['queries']:,} = {rows}")
    asked = summary["asked_teacher"]
    table.add_row("asked the teacher", f"{asked:,}" if asked else "0: every label was held already")
    table.add_row("labels right", judged_text(summary["judgement"]))
    table.add_row("teacher on gold", f1_text(summary["teacher"]))
    ratio = summary["student_ratio"]
    over = f", {ratio[0]:.1%} to {ratio[1]:.1%} of the teacher's there" if ratio else ""
    table.add_row("student on gold's tail", f1_text(summary["student"]) + over)
    if (compared := summary["served"])["difference"] is not None:
        low, high = (100 * end for end in compared["interval"])
        beside = f"{100 * compared['difference']:+.1f} points of F1 ({low:+.1f} to {high:+.1f})"
        table.add_row("against the one served", beside)
    for one in summary["latency"][:1]:
        table.add_row(
            "latency", f"p50 {one['p50_ms']:,.0f} ms, p99 {one['p99_ms']:,.0f} ms with {one['at_once']} at once"
        )
    ratio = summary["lookup_ratio"]
    over = f", {ratio[0]:.1%} to {ratio[1]:.1%} of the teacher's" if ratio else ""
    table.add_row("lookup, by traffic", f1_text(summary["lookup"]) + over)
    table.add_row("head", f"{summary['head_entries']:,} entries, {summary['head_traffic_share']:.1%} of the traffic")
    stays = "; that release stays" if summary["release"] else ""
    state = "" if summary["published"] else f" (the gate refused this night{stays})"
    table.add_row("release", f"{summary['release'] or 'none'}{state}")
    for check in summary["gate"]:
        if not check["passed"]:
            table.add_row("refused", check["message"])
    times = " · ".join(f"{name} {seconds:.0f}" for name, seconds in summary["seconds"].items())
    table.add_row("seconds", f"{times} = {sum(summary['seconds'].values()):.0f}")
    table.add_row("report", str(settings.folder / "nights" / summary["night"] / "report.html"))
    return table


def evaluation_table(found: dict[str, Any]) -> Group:
    """A student's figures on right answers (`stillhouse evaluate`): in all, by field, by slice; how fast, how large."""
    left = (
        f" ({found['left_out']:,} more left out: the student was trained on them, or near)" if found["left_out"] else ""
    )
    title = f"[bold]{plain(found['student'])}[/] on {plain(found['data'])}: {found['queries']:,} queries{left}"
    size, score = found["size"], found["score"]
    scores = Table("", "precision", "recall", "F1", "95% interval", box=box.SIMPLE)
    for name, part in {"all fields": score, **score["by_field"]}.items():
        scores.add_row(
            name, *(f"{part[key]:.3f}" for key in ("precision", "recall", "f1")), _between(part["f1_interval"])
        )
    scores.add_row("mean of fields", "", "", f"{score['macro_f1']:.3f}", _between(score["macro_f1_interval"]))
    scores.add_row("wholly right", "", "", f"{score['exact']:.3f}", _between(score["exact_interval"]))
    slices = Table("", "", "queries", "F1", "95% interval", box=box.SIMPLE)
    for one in found["slices"]:
        f1 = one["student"]
        slices.add_row(one["by"], one["value"], f"{one['queries']:,}", f"{f1['f1']:.3f}", _between(f1["f1_interval"]))
    facts = Table(box=box.SIMPLE, show_header=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("invalid answers", f"{found['invalid_rate']:.2%}")
    if size["parameters"]:
        facts.add_row("size", f"{size['parameters']:,} parameters, {size['gib']:.3f} GiB")
    for one in found["latency"] or []:
        times = (
            f"p50 {one['p50_ms']:,.0f} ms, p99 {one['p99_ms']:,.0f} ms, {one['tokens_per_second']:,.0f} tokens a second"
        )
        facts.add_row(f"{one['at_once']} at once", f"{times} ({one['requests']:,} requests)")
    if general := found["general"]:
        for what, change in (("accuracy", "loss"), ("perplexity", "rise")):
            if general[f"{what}_before"] is not None:
                figures = f"{general[f'{what}_before']:.3f} before, {general[f'{what}_after']:.3f} after"
                facts.add_row(f"general {what}", f"{figures}: a {change} of {general[f'{what}_{change}']:.1%}")
    facts.add_row("written to", plain(found["file"]))
    return Group(title, scores, slices, facts)


def _between(interval: list[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def judged_text(judgement: dict[str, Any] | None) -> str:
    """The share of labels that people say are right."""
    if not judgement:
        return "not known: nobody has reviewed them (stillhouse review)"
    simulated = "simulated " if judgement["simulated"] else ""
    interval = f"{judgement['low']:.1%} to {judgement['high']:.1%}"
    return f"{judgement['precision']:.1%} ({interval}) by {judgement['verdicts']:,} {simulated}verdicts"


def f1_text(score: dict[str, Any] | None) -> str:
    """F1 with its interval and count."""
    if not score:
        return "not measured"
    low, high = score["f1_interval"]
    return f"F1 {score['f1']:.3f} ({low:.3f} to {high:.3f}) on {score['queries']:,} queries"


def one_by_one(rows: list[dict[str, Any]]) -> Group:
    """Rows with long cells, each as a table of its own."""
    return Group(*map(answer_table, rows))


def answer_table(answer: dict[str, Any]) -> Table:
    """One row, a line a value."""
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in answer.items():
        if value not in (None, ""):
            table.add_row(name, _cell(value))
    return table


def forecast_table(forecast: dict[str, Any]) -> Group:
    """What a labelling run would ask: whole prompts, then tokens, time and cost."""
    prompts = []
    for number, prompt in enumerate(forecast["prompts"], 1):
        said = "\n".join(f"[bold]{message['role']}[/]\n{plain(message['content'])}" for message in prompt["messages"])
        prompts.append(Panel(said, title=f"prompt {number} of {forecast['to_ask']:,}: {prompt['tokens']} tokens"))
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("queries", f"{forecast['queries']:,}, of which {forecast['to_ask']:,} would be asked")
    about = "" if forecast["tokens_counted"] else "about "
    table.add_row("tokens in", f"{about}{forecast['tokens_in']:,}")
    table.add_row("tokens out", f"about {forecast['tokens_out']:,}")
    seconds, cost = forecast["seconds"], forecast["cost"]
    table.add_row("time", "unknown" if seconds is None else f"about {seconds:,.0f} s after the teacher's start")
    unknown = "no price: set teacher.price.gpu_hour, or teacher.price.million_in and million_out"
    table.add_row("cost", unknown if cost is None else f"about {cost:,.2f} {forecast['currency']}")
    table.add_row("by", forecast["basis"])
    return Group(*prompts, table)


def rows_table(rows: list[dict[str, Any]]) -> Table:
    """Any rows, the first 200."""
    table = Table(box=box.SIMPLE, caption=f"first {SHOWN_ROWS} of {len(rows):,}" if len(rows) > SHOWN_ROWS else None)
    for name in rows[0] if rows else ["nothing found"]:
        table.add_column(name, overflow="fold")
    for row in rows[:SHOWN_ROWS]:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def releases_table(rows: list[dict[str, Any]]) -> Table:
    """The releases, the latest last (`stillhouse releases`)."""
    table = rows_table(
        [
            {
                "release": row["release"],
                "": "served" if row["serving"] else "kept" if row["kept"] else "gone",
                "night": row["night"],
                "entries": f"{row['entries']:,}",
                "traffic": f"{row['traffic_share']:.1%}",
                "memory": _size(row["bytes"]),
                "student": row["student"],
                "forced": ", ".join(row["forced"]),
            }
            for row in rows
        ]
    )
    for column in (*table.columns[:2], *table.columns[3:6]):  # the night and the student may fold
        column.no_wrap = True
    return table


def _size(size: float | None) -> str:
    if size is None:
        return ""
    return f"{size / 2**10:,.0f} KiB" if size < 2**20 else f"{size / 2**20:,.1f} MiB"


def changes_table(found: dict[str, Any]) -> Group:
    """What changed between two releases (`stillhouse diff`)."""
    parts = [(kind, found[kind]) for kind in ("changed", "added", "removed")]
    told = ", ".join(f"{part['labels']:,} {kind} ({part['traffic_share']:.1%} of the traffic)" for kind, part in parts)
    rows = [
        {"query": one["query"], "": one["change"], "traffic": f"{one['traffic']:,.0f}"}
        | {name: "" if one[name] is None else one[name] for name in ("before", "after")}
        for one in found["changes"]
    ]
    words = f"[bold]{plain(found['before'])} → {plain(found['after'])}[/]: {told}"
    return Group(words, *([rows_table(rows)] if rows else []))


def _cell(value: object) -> str:
    """Text from the log is hostile: no markup, no control characters (which could drive the terminal)."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return plain(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…")


def plain(text: str) -> str:
    """Hostile text as the terminal may have it: no markup, no control characters."""
    return escape("".join(char if char.isprintable() or char == "\n" else "�" for char in text))
