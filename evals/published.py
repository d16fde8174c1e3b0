"""What the report says was published: the head as it was forecast, and as it was found in Redis."""

from collections.abc import Mapping
from typing import Any

KIB, MIB = 2**10, 2**20
ENDED = {
    "share": "cut at the share of traffic wanted",
    "entries": "cut at the number of entries allowed",
    "memory": "cut at the memory allowed",
    "labels": "all that has a label",
}


def published_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of the "What was published" table, from the night's summary.json; whatever it has not may be None or missing."""
    release, head = summary.get("release"), summary.get("head")
    rows = [
        ("Release", str(release) if summary.get("published") else "none this night"),
        ("In use", str(release) if release else "no release yet"),
    ]
    if not head or not head["entries"]:
        return [*rows, ("Head", "no queries")]
    people = f", {head['people']:,} of them people's answers" if head["people"] else ""
    rows += [
        ("Head", f"{head['entries']:,} queries{people}: {ENDED.get(head['ended'], head['ended'])}"),
        ("Forecast", f"{head['traffic_share']:.1%} of the traffic, {_size(head['bytes'])}"),
    ]
    if found := head.get("published"):
        figures = f"{found['entries']:,} entries, {found['traffic_share']:.1%} of the traffic, {_size(found['bytes'])}"
        rows.append(("Found in Redis", figures))
    if aliases := head.get("false_hits"):
        low, high = aliases["interval"]
        figures = f"{aliases['share']:.1%} wrong (95%: {low:.1%} to {high:.1%}) by {aliases['hits']:,} queries"
        state = f"{aliases['extra']:.2%} of the traffic more" if head["aliases"] else "not published"
        rows.append(("Aliases", f"{figures}; {state}"))
    return rows


def _size(size: float | None) -> str:
    if size is None:
        return "unknown memory"
    return f"{size / KIB:,.0f} KiB of Redis" if size < MIB else f"{size / MIB:,.1f} MiB of Redis"
