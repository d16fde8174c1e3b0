"""Stage: what the days of lookups say of the release that served them."""

from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from math import isfinite
from typing import Any

from rich.markup import escape

from cache.client import connect
from cache.days import Day, read_days
from cache.journal import SOURCES
from cache.release import releases
from evals.online import drifts, shortfall
from flows.night import Night
from labels.records import Release

DAYS = 28
"""Days that the report shows."""


def watch_lookups(night: Night, release: Release | None) -> dict[str, Any]:
    """The whole days (UTC) of lookups up to yesterday, as the summary holds them; `release` is the one that serves now.

    `days`: of each its answers by source, latency, misses, and what its release forecast as a hit rate; `warnings`, where
    yesterday's was lower; `drift`. Raises ServiceError where Redis can't be reached.
    """
    yesterday = night.began.date() - timedelta(days=1)
    with closing(connect(night.redis_url, night.settings.cache.cluster)) as client:
        found = read_days(client, yesterday, DAYS)
        known = [one for one in releases(client) if release and one.created <= release.created] if found else []
    days = [_day(day, _serving(day.day, known)) for day in found]
    warning = None
    if days and days[-1]["day"] == yesterday.isoformat() and days[-1]["forecast"] is not None:
        warning = shortfall(days[-1], days[-1]["forecast"])
    drift = drifts(days)
    _say(night, days, warning, [one.message for one in drift if one.drifted])
    return {
        "days": days,
        "warnings": [warning] if warning else [],
        "drift": [{"name": one.name, "drifted": one.drifted, "message": one.message} for one in drift],
    }


def _serving(day: str, known: Sequence[Release]) -> Release | None:
    """The release that served most of a day: the last one made before its noon, else the first one made on it."""
    made = sorted((one for one in known if one.created[:10] <= day), key=lambda one: one.created)
    before_noon = [one for one in made if one.created < f"{day}T12"]
    return next(iter([*before_noon[-1:], *made]), None)


def _day(day: Day, release: Release | None) -> dict[str, Any]:
    """As JSON. A quantile beyond the last bound is None."""
    return {
        "day": day.day,
        "release": release.release if release else None,
        "forecast": release.traffic_share if release else None,
        "answers": {source: day.answers(source) for source in SOURCES},
        "latency": {
            source: {"p50": _finite(day.quantile(source, 0.5)), "p99": _finite(day.quantile(source, 0.99))}
            for source in SOURCES
            if day.answers(source)
        },
        "misses": day.misses,
        "lost": day.lost,
        "missed": day.missed,
        "new": day.new,
        "refused": dict(day.refused),
        "unreadable": day.unreadable,
    }


def _finite(bound: float | None) -> float | None:
    return bound if bound is not None and isfinite(bound) else None


def _say(night: Night, days: list[dict[str, Any]], warning: str | None, drifting: list[str]) -> None:
    if not days:
        night.screen.say("  no whole day of lookups yet")
        return
    last = days[-1]
    total = sum(last["answers"].values())
    forecast = f" (forecast {last['forecast']:.1%})" if last["forecast"] is not None else ""
    night.screen.say(
        f"  {last['day']}: {total:,} lookups, {last['answers']['cache'] / total:.1%} from the head{forecast}"
    )
    for message in filter(None, [warning, *drifting]):
        night.screen.say(f"  [yellow]warning:[/] {escape(message)}")
