"""The report's plots of lookups by day: hit rate, answers by source, latency."""

from collections.abc import Mapping, Sequence
from datetime import date
from math import nan
from typing import TYPE_CHECKING, Any

from evals.drawing import ACCENT, AUTHORS, BAD, INK, MUTED, Plot, canvas, percent, styled, svg_of
from evals.online import SOURCES, figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TONES = {"cache": ACCENT, "tail-cache": AUTHORS["lookup"][0], "student": AUTHORS["student"][0], "none": BAD}
MARKERS = {"cache": ("o", 5), "tail-cache": ("D", 7), "student": ("s", 8), "none": ("X", 9)}  # what is under shows
DASHED = (0, (4, 3))
BESIDE: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "handletextpad": 0.4, "columnspacing": 1.4}
Days = Sequence[Mapping[str, Any]]


def drawn(online: Mapping[str, Any]) -> list[Plot]:
    """The plots of a summary's `online` section; none where no day was counted."""
    days = online.get("days") or []
    return [hit_rate(days), sources(days), latencies(days), misses(days)] if days else []


def rows(online: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The last day by source, for a table: source, answers, share, p50 and p99 in words."""
    if not online.get("days"):
        return []
    last = online["days"][-1]
    total = sum(last["answers"].values())
    return [
        {"source": source, "answers": count, "share": count / total, **_bounds(last["latency"].get(source))}
        for source in SOURCES
        if (count := last["answers"].get(source, 0))
    ]


def counted(online: Mapping[str, Any]) -> str:
    """In a sentence or two what else was counted on the last day."""
    if not online.get("days"):
        return ""
    last = online["days"][-1]
    told = f"Lookups missed the head {last['misses']:,} times, with about {last['missed']:,} different queries"
    told += f", about {last['new']:,} of them not missed in the week before." if last.get("new") is not None else "."
    if last.get("refused"):
        told += " Turned down: " + ", ".join(f"{what} {count:,}" for what, count in last["refused"].items()) + "."
    if last.get("lost"):
        told += f" {last['lost']:,} misses were lost while Redis was away, so the next night does not label them."
    if last.get("unreadable"):
        told += f" Processes whose counts could not be read: {last['unreadable']:,}."
    return told


def _bounds(latency: Mapping[str, float | None] | None) -> dict[str, str]:
    def word(value: float | None) -> str:
        return "over 5 s" if value is None else f"{value:g} ms"

    return {key: word(latency[key]) for key in ("p50", "p99")} if latency else {"p50": "–", "p99": "–"}


@styled
def hit_rate(days: Days) -> Plot:
    """By day the share of answers that came from the head, beside what its release forecast."""
    name, title = "hit-rate", "Hit rate of the head by day"
    if not days:
        return Plot(name, title, "", "Not drawn: no day of lookups was counted yet.")
    rates = [nan if (rate := figures(day)["hit_rate"]) is None else rate for day in days]
    forecasts = [day.get("forecast") for day in days]
    figure, axes = canvas()
    places = _days(axes, days)
    axes.plot(places, rates, "o-", color=ACCENT, linewidth=2, markersize=5, label="found in the head")
    if any(forecast is not None for forecast in forecasts):
        values = [nan if forecast is None else forecast for forecast in forecasts]
        half = [edge for place in places for edge in (place - 0.5, place + 0.5)]
        twice = [value for value in values for _ in range(2)]
        axes.plot(half, twice, color=INK, linewidth=1, linestyle=DASHED, label="forecast")
    axes.yaxis.set_major_formatter(percent)
    low, high = axes.get_ylim()
    room = max(0.02, (high - low) * 0.1)
    axes.set(ylim=(max(0.0, low - room), min(1.02, high + room)), ylabel="share of answers")
    axes.legend(ncols=2, **BESIDE)
    words = f"On {days[-1]['day']} the head answered {rates[-1]:.1%} of the lookups"
    words += (
        f"; {forecasts[-1]:.1%} was forecast." if forecasts[-1] is not None else "; there was no forecast for that day."
    )
    return Plot(name, title, svg_of(figure, name), words)


@styled
def sources(days: Days) -> Plot:
    """By day the answers, stacked by where they came from."""
    name, title = "sources", "Answers by source"
    if not days:
        return Plot(name, title, "", "Not drawn: no day of lookups was counted yet.")
    figure, axes = canvas()
    places, below = _days(axes, days), [0] * len(days)
    for source in SOURCES:
        counts = [day["answers"].get(source, 0) for day in days]
        if any(counts):
            axes.bar(places, counts, width=0.8, bottom=below, color=TONES[source], label=source)
        below = [low + count for low, count in zip(below, counts, strict=True)]
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylabel("answers")
    axes.legend(ncols=len(SOURCES), **BESIDE)
    last = days[-1]["answers"]
    told = ", ".join(f"{last[source]:,} {source}" for source in SOURCES if last.get(source))
    return Plot(name, title, svg_of(figure, name), f"On {days[-1]['day']}: {told}.")


@styled
def latencies(days: Days) -> Plot:
    """By day each source's p50 and p99, on a logarithmic axis, as the bounds of the buckets they are in."""
    name, title = "lookup-latency", "Latency of lookups by source"
    if not any(day["latency"] for day in days):
        return Plot(name, title, "", "Not drawn: no latency of lookups was counted yet.")
    figure, axes = canvas()
    places = _days(axes, days)
    for source in reversed(SOURCES):
        marker, size = MARKERS[source]
        for key, line in (("p50", DASHED), ("p99", "-")):
            values = [(day["latency"].get(source) or {}).get(key) for day in days]
            axes.plot(
                places,
                [nan if value is None else value for value in values],
                color=TONES[source],
                linestyle=line,
                linewidth=1.4,
                marker=marker,
                fillstyle="none" if key == "p50" else "full",
                markersize=size * (1 if len(days) <= 10 else 0.6),
                label=source if key == "p99" and any(source in day["latency"] for day in days) else None,
            )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda *_: "")
    axes.set_ylabel("milliseconds (log scale)")
    axes.legend(ncols=len(SOURCES), **BESIDE)
    words = "p99 is solid and filled, p50 dashed and hollow; each is the upper bound of the bucket that it is in."
    return Plot(name, title, svg_of(figure, name), words)


@styled
def misses(days: Days) -> Plot:
    """By day the shares that drift: of missed queries those that are new, of missed lookups those without any answer."""
    name, title = "misses", "What the head missed"
    shares = {
        "new queries": ([figures(day)["new_share"] for day in days], AUTHORS["lookup"]),
        "no answer": ([figures(day)["none_share"] for day in days], (BAD, "X")),
    }
    shares = {what: told for what, told in shares.items() if any(value is not None for value in told[0])}
    if not shares:
        return Plot(name, title, "", "Not drawn: the head missed nothing.")
    figure, axes = canvas()
    places = _days(axes, days)
    for what, (values, (colour, marker)) in shares.items():
        drawn = [nan if value is None else value for value in values]
        axes.plot(places, drawn, color=colour, marker=marker, linewidth=2, markersize=5, label=what)
    axes.yaxis.set_major_formatter(percent)
    axes.set(ylim=(0, max(0.1, axes.get_ylim()[1])), ylabel="share")
    axes.legend(ncols=2, **BESIDE)
    words = "New queries: of the different queries missed, those that none of the seven days before had missed"
    words += ", counted to a point or so. No answer: of the lookups missed, those that nobody answered."
    return Plot(name, title, svg_of(figure, name), words)


def _days(axes: "Axes", days: Days) -> list[int]:
    """Where each day stands, a missing one leaving its gap; with at most seven of them named on the axis."""
    dates = [date.fromisoformat(day["day"]) for day in days]
    places = [(one - dates[0]).days for one in dates]
    step = max(1, -(-(places[-1] + 1) // 7))
    named = range(places[-1], -1, -step)
    axes.set_xticks(named, [f"{(d := date.fromordinal(dates[0].toordinal() + place)).day} {d:%b}" for place in named])
    axes.tick_params(axis="x", length=0, labelcolor=MUTED)
    axes.set_xlim(-0.6, places[-1] + 0.6)
    return places
