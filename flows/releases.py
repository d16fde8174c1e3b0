"""The releases: which there are, and what changed between two of them."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from heapq import nlargest
from typing import Any

import pyarrow.parquet as pq

from cache.client import Client
from cache.diff import Change, diff
from cache.layout import values_of
from cache.memory import measured_bytes
from cache.release import current_release, releases, standing
from flows.online import redis_client
from flows.settings import Settings
from labels.errors import InputError
from labels.records import Release

HIDDEN = ("normalisation", "task_version", "buckets", "canonical")


def list_releases(settings: Settings) -> list[dict[str, Any]]:
    """All releases served, the latest last. `serving`: the current one; `kept`: whether one can go back to it.

    `traffic_share` is the forecast it was published with, `bytes` what it takes of Redis's memory now, None where it is gone
    or Redis does not say.
    """
    with redis_client(settings) as client:
        current = current_release(client)
        kept = {one.release for one in standing(client)}
        return [
            {name: value for name, value in asdict(one).items() if name not in HIDDEN}
            | {
                "kept": one.release in kept,
                "bytes": measured_bytes(client, one.generation, one.buckets) if one.release in kept else None,
                "serving": one.release == current.release if current else False,
            }
            for one in releases(client)
        ]


def changes(settings: Settings, before: str | None, after: str | None, limit: int) -> dict[str, Any]:
    """The labels that differ between two releases: how many of which kind and with what share of the last night's traffic,
    and the `limit` most frequent of them (0: all).

    `after` is the current release unless told, `before` the one published before it. Raises InputError where there is no such
    release, or it is kept no more.
    """
    traffic = last_traffic(settings)
    total = sum(traffic.values()) or 1.0
    counts, events = Counter[str](), defaultdict[str, float](float)

    def counted(found: Iterator[Change]) -> Iterator[Change]:
        for one in found:
            counts[one.kind] += 1
            events[one.kind] += traffic.get(one.query, 0.0)
            yield one

    def frequent(one: Change) -> tuple[float, str]:
        return traffic.get(one.query, 0.0), one.query

    with redis_client(settings) as client:
        first, second = _two(client, before, after)
        found = counted(diff(client, first, second))
        rows = nlargest(limit, found, key=frequent) if limit else sorted(found, key=frequent, reverse=True)
    fields = list(settings.task_class().model_fields)
    return {
        "before": first.release,
        "after": second.release,
        **{
            kind: {"labels": counts[kind], "traffic_share": round(events[kind] / total, 6)}
            for kind in ("added", "removed", "changed")
        },
        "changes": [
            {
                "query": one.query,
                "change": one.kind,
                "traffic": round(traffic.get(one.query, 0.0), 3),
                "before": _value(one.before, fields),
                "after": _value(one.after, fields),
            }
            for one in rows
        ],
    }


def last_traffic(settings: Settings) -> dict[str, float]:
    """The traffic of the last night's queries; nothing before the first night."""
    nights = sorted((settings.folder / "warehouse" / "queries").glob("*.parquet"))
    if not nights:
        return {}
    table = pq.read_table(nights[-1], columns=["query", "traffic"])
    return dict(zip(table["query"].to_pylist(), table["traffic"].to_pylist(), strict=True))


def _two(client: Client, before: str | None, after: str | None) -> tuple[Release, Release]:
    """The releases of these names, both kept."""
    current, known = current_release(client), releases(client)
    kept = {one.release: one for one in standing(client)}
    after = after or (current.release if current else None)
    if before is None:
        names = [one.release for one in known]
        place = names.index(after) if after in names else 0
        if place == 0:
            there = f"there is no release before {after}" if after in names else f"there is no release {after}"
            raise InputError(
                f"wanted two releases, but {there if after else 'nothing is released yet'}; {_those(kept)}"
            )
        before = names[place - 1]
    for wanted in (before, after):
        if wanted not in kept:
            gone = any(one.release == wanted for one in known)
            why = "is kept no more (cache.kept_generations says how many are)" if gone else "is no release"
            raise InputError(f"wanted two releases to compare, but {wanted} {why}; {_those(kept)}")
    return kept[before], kept[str(after)]


def _those(kept: dict[str, Release]) -> str:
    return f"there are: {', '.join(kept)}" if kept else "publish one first: stillhouse night"


def _value(raw: bytes | None, fields: list[str]) -> dict[str, Any] | list[Any] | None:
    """An entry's values by field; as they are where they are of another task."""
    if raw is None:
        return None
    values = values_of(raw)
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else values
