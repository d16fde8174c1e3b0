"""The report's plots of the student and of the gate: margins, slices, training, what it learnt from, comparisons."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from evals.drawing import ACCENT, AUTHORS, BAD, GOOD, INK, MUTED, Plot, canvas, percent, plain, sentence, styled, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SLICES = 24
DASHED = (0, (4, 3))
STUDENT = AUTHORS["student"][0]


@styled
def margins(checks: Sequence[Mapping[str, Any]]) -> Plot:
    """Each check's figure against its threshold (`Check.to_json`), on a scale of its own; what passes is shaded."""
    name, title = "margins", "Each check's figure against what the gate asks"
    shown = [one for one in checks if one["figure"] is not None and one["threshold"] is not None]
    shown = [one for one in shown if one.get("unit", "share") != "count" and one["name"] != "rows"]
    if not shown:
        return Plot(name, title, "", "Not drawn: the gate had no figure to hold against a threshold.")
    figure, axes = canvas(0.25 + 0.46 * len(shown))
    axes.remove()
    rows = np.atleast_1d(figure.subplots(len(shown), 1))
    for place, one in zip(rows, shown, strict=True):
        _margin(place, one)
    told = ", ".join(f"{one['name']} {_in_unit(one['figure'], one)}" for one in shown)
    return Plot(name, title, svg_of(figure, name), f"{sentence(told)} The dashed line is the threshold, shaded passes.")


def _margin(axes: "Axes", one: Mapping[str, Any]) -> None:
    """One row: the threshold, the side of it that passes, the figure with its interval."""
    figure, threshold, at_most = one["figure"], one["threshold"], one.get("at_most")
    low, high = one.get("interval") or (figure, figure)
    ends = sorted((figure, threshold, low, high))
    room = (ends[-1] - ends[0] or abs(threshold) or 1.0) * 0.12
    left, right = ends[0] - room, ends[-1] + room
    if one.get("unit", "share") == "share":
        left, right = max(left, -0.002), min(right, 1.002)
    axes.axvspan(left if at_most else threshold, threshold if at_most else right, color=GOOD, alpha=0.13, linewidth=0)
    axes.axvline(threshold, color=MUTED, linewidth=1, linestyle=DASHED)
    colour = GOOD if one["passed"] else BAD
    axes.plot([low, high], [0, 0], color=colour, linewidth=2)
    axes.plot([figure], [0], "o", color=colour, markersize=7)
    axes.set(xlim=(left, right), ylim=(-1, 1), xticks=[])
    axes.set_yticks([0], [one["name"]], fontsize=10)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines[["left", "bottom"]].set_visible(False)
    words = f"{_in_unit(figure, one)}  ({'≤' if at_most else '≥'} {_in_unit(threshold, one)})"
    axes.text(1.02, 0.5, words, transform=axes.transAxes, va="center", fontsize=8.5)


def _in_unit(value: float, check: Mapping[str, Any]) -> str:
    unit = check.get("unit", "share")
    if unit == "ms":
        return f"{value:,.0f} ms"
    return f"{100 * value:+.1f} pts" if unit == "points" else f"{value:.1%}"


@styled
def slices(found: Sequence[Mapping[str, Any]]) -> Plot:
    """F1 on each slice of the gold with its interval, teacher beside student (`Slice.to_json`)."""
    name, title = "slices", "F1 by slice of the gold"
    if not found:
        return Plot(
            name, title, "", "Not drawn: without gold answers there is nothing to slice. Give them with --gold FILE."
        )
    shown = found[:MOST_SLICES]
    figure, axes = canvas(0.75 + 0.27 * len(shown))
    place, ticks, labels = 0.0, list[float](), list[str]()
    for by, group in groupby(shown, key=lambda one: one["by"]):
        for number, one in enumerate(group):
            for author, offset in (("teacher", -0.14), ("student", 0.14)):
                if one[author]:
                    _interval(axes, one[author], place + offset, *AUTHORS[author], label=author if not ticks else None)
            ticks.append(place)
            labels.append(f"{by + ': ' if not number else ''}{plain(one['value'])} ({one['queries']:,})")
            place += 1
        place += 0.4
    axes.set_yticks(ticks, labels, fontsize=8.5)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set(ylim=(place - 0.7, -0.6), xlim=(None, 1.01), xlabel="F1 (95% interval)")
    axes.xaxis.set_major_formatter(percent)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles, names, loc="lower center", bbox_to_anchor=(0.3, 1.0), ncols=2, handletextpad=0.3)
    worst = min(found, key=lambda one: one["student"]["f1"])
    words = f"the student is weakest where {worst['by']} is {worst['value']!r}: F1 {worst['student']['f1']:.1%}"
    return Plot(name, title, svg_of(figure, name), sentence(f"{words}, on {worst['queries']:,} queries"))


def _interval(
    axes: "Axes", found: Mapping[str, Any], place: float, colour: str, marker: str, label: str | None = None
) -> None:
    value, (low, high) = found["f1"], found["f1_interval"]
    error = [[max(value - low, 0)], [max(high - value, 0)]]
    axes.errorbar(value, place, xerr=error, color=colour, marker=marker, markersize=5, linewidth=1.6, label=label)


STEPS = {
    "pretrain": ("Continued pretraining of the base", "loss per\ntoken (nats)"),
    "training": ("The student's training", "loss per label\ntoken (nats)"),
    "dpo": ("The student's DPO on corrections", "preference and\nlikelihood loss"),
    "distil": ("The student's distillation", "divergence from the\nteacher (nats a token)"),
}
"""What a student may have gone through, in this order: the plot's title, and what its loss is."""


@styled
def training(curve: Sequence[Mapping[str, float]], step: str = "training") -> Plot:
    """The curve of one of STEPS: its loss, learning rate and tokens a second, by optimiser step."""
    name, (title, loss) = step, STEPS[step]
    if not curve:
        return Plot(name, title, "", "Not drawn: no curve of the student's training is there.")
    panels = [("loss", loss), ("learning_rate", "learning\nrate")]
    panels += [("tokens_per_second", "tokens\na second")]
    panels = [(key, label) for key, label in panels if any(key in line for line in curve)]
    figure, axes = canvas(1.2 + 0.8 * len(panels))
    axes.remove()
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=[2.2, *[1] * (len(panels) - 1)])
    for place, (key, label) in zip(rows[:, 0], panels, strict=True):
        points = [(line["step"], line[key]) for line in curve if key in line]
        steps, values = zip(*points, strict=True)
        place.plot(steps, values, color=STUDENT, linewidth=2, marker="o" if len(points) < 3 else None, markersize=4)
        place.set(ylim=(0, max(*values, 1e-9) * 1.12))
        place.set_ylabel(label, fontsize=8.5)
        place.ticklabel_format(axis="y", style="plain") if max(values) >= 0.01 else None
        place.tick_params(labelsize=8.5)
        place.grid(visible=True, axis="y")
    rows[-1, 0].set_xlabel("optimiser step")
    losses = [(line["step"], line["loss"]) for line in curve if "loss" in line]
    words = f"loss {losses[0][1]:.3f} at step {losses[0][0]:,.0f}, {losses[-1][1]:.3f} at step {losses[-1][0]:,.0f}"
    rates = [line["tokens_per_second"] for line in curve if "tokens_per_second" in line]
    words += f"; {np.median(rates):,.0f} tokens a second by the median" if rates else ""
    seconds = curve[-1].get("seconds")
    words += f"; {seconds:,.0f} s in all" if seconds else ""
    return Plot(name, title, svg_of(figure, name), sentence(words))


@styled
def kept(dataset: Mapping[str, Any] | None) -> Plot:
    """What share of the labels trains, by difficulty (fifths, the hardest last) and by band (the dataset's manifest)."""
    name, title = "kept", "What of the labels trained the student"
    found = (dataset or {}).get("kept") or {}
    fifths, bands = found.get("by_difficulty") or [], found.get("by_band") or []
    if not fifths:
        return Plot(name, title, "", "Not drawn: the dataset does not say what it was drawn from.")
    figure, axes = canvas(2.6)
    axes.remove()
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[max(len(fifths), 1), max(len(bands), 1)])
    names = ["easiest", *[""] * (len(fifths) - 2), "hardest"] if len(fifths) > 1 else ["all"]
    _shares(left, fifths, names, "by difficulty, in fifths")
    _shares(right, bands, [one["band"] for one in bands], "by traffic")
    left.set(ylim=(0, 1.1))
    left.yaxis.set_major_formatter(percent)
    left.set_ylabel("share that trains")
    whole, taken = sum(one["whole"] for one in fifths), sum(one["kept"] for one in fifths)
    hardest = fifths[-1]
    words = f"{taken:,} of the {whole:,} labels that do not measure train the student ({_share(taken, whole)}), of the "
    words += f"hardest fifth {_share(hardest['kept'], hardest['whole'])}"
    return Plot(name, title, svg_of(figure, name), sentence(words))


def _shares(axes: "Axes", parts: Sequence[Mapping[str, Any]], names: Sequence[str], label: str) -> None:
    places = range(len(parts))
    shares = [one["kept"] / one["whole"] if one["whole"] else 0.0 for one in parts]
    axes.bar(places, [1.0] * len(parts), width=0.72, color=MUTED, alpha=0.16)
    axes.bar(places, shares, width=0.72, color=STUDENT, alpha=0.85)
    for place, (share, one) in enumerate(zip(shares, parts, strict=True)):
        axes.text(place, share + 0.015, f"{one['kept']:,}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(places, names, fontsize=9)
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    axes.set_xlabel(label)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none"


def rows_words(rows: int | None) -> str:
    """How many rows there were, as far as known."""
    return "rows unknown" if rows is None else f"{rows:,} rows"


@styled
def comparisons(found: Sequence[Mapping[str, Any]]) -> Plot:
    """F1 of students trained on other rows: name, rows, f1, f1_interval, student_ahead_by (the first less this one)."""
    name, title = "comparisons", "What the labels are worth: students trained on other rows"
    if not found:
        return Plot(
            name, title, "", "Not drawn: no other student was trained to compare with. `stillhouse compare` does."
        )
    figure, axes = canvas(0.9 + 0.42 * len(found))
    for place, one in enumerate(found):
        _interval(axes, one, place, STUDENT if not place else ACCENT, "s" if not place else "o")
        axes.annotate(
            f"{100 * one['f1']:.1f}",
            (one["f1"], place),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
    axes.set_yticks(
        range(len(found)), [f"{plain(one['name'])}\n{rows_words(one['rows'])}" for one in found], fontsize=9
    )
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set(ylim=(len(found) - 0.4, -0.7), xlabel="F1 (95% interval), all on the same gold")
    axes.xaxis.set_major_formatter(percent)
    words = [f"{one['name']}: F1 {one['f1']:.1%}" for one in found]
    for place, one in enumerate(found):
        if one.get("student_ahead_by"):
            low, high = (100 * end for end in one["student_ahead_by"])
            words[place] += f" (the first less this one: {low:+.1f} to {high:+.1f} points)"
    return Plot(name, title, svg_of(figure, name), sentence("; ".join(words)))
