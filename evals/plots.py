"""The report's plots of the night: quality, verdicts, coverage, confidence, time."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evals.calibration import BINS, LEAST, Bin, Checked, bin_of, expected_calibration_error, reliability_bins
from evals.drawing import ACCENT, AUTHORS, INK, MUTED, Plot, canvas, percent, sentence, styled, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled
def coverage(traffic: Sequence[float], head: int) -> Plot:
    """The share of all traffic that the most frequent queries make up; `traffic` falls, the head is cut after `head`.

    The longest logs are drawn by 400 points, evenly spaced on the logarithmic axis.
    """
    name, title = "coverage", "Traffic covered by the head"
    total = float(np.sum(traffic))
    if not total:
        return Plot(name, title, "", "Not drawn: the night counted no traffic.")
    share = np.cumsum(np.asarray(traffic, dtype=float)) / total
    ranks = np.unique(np.geomspace(1, len(share), 400).astype(int))
    figure, axes = canvas()
    axes.plot(ranks, share[ranks - 1], color=ACCENT, linewidth=2)
    words = f"{len(share):,} distinct queries; no head is marked, since none was published."
    if head := min(head, len(share)):
        inside = ranks[ranks <= head]
        axes.fill_between(inside, share[inside - 1], color=ACCENT, alpha=0.16, linewidth=0)
        axes.axvline(head, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot([head], [share[head - 1]], "o", color=ACCENT, markersize=6)
        left = head > len(share) ** 0.5
        axes.annotate(
            f"head cut: top {head:,},\n{share[head - 1]:.0%} of traffic",
            (head, 0.06),
            xytext=(-7 if left else 7, 0),
            textcoords="offset points",
            ha="right" if left else "left",
        )
        words = f"The head was cut after the {head:,} most frequent of {len(share):,} distinct queries, "
        words += f"which make up {share[head - 1]:.1%} of traffic."
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set(xlim=(1, max(len(share), 2)), ylim=(0, 1.02))
    axes.set(xlabel="distinct queries, most frequent first (log scale)", ylabel="share of traffic")
    axes.yaxis.set_major_formatter(percent)
    return Plot(name, title, svg_of(figure, name), words)


@styled
def judgement(found: Mapping[str, Any] | None, threshold: float | None = None) -> Plot:
    """What share of labels is right, over all, by stratum and by traffic, with 95% intervals (`Judgement.to_json`)."""
    name, title = "judgement", "Labels that are right, by people's verdicts"
    if not found:
        return Plot(name, title, "", "Not drawn: nobody has judged this night's labels. `stillhouse review` asks.")
    whole = {"share": found["precision"], "low": found["low"], "high": found["high"]}
    rows = [("all labels", whole), ("by traffic", found["by_traffic"]), *found["by_stratum"].items()]
    rows = [(what, part) for what, part in rows if part]
    figure, axes = canvas()
    for place, (what, part) in enumerate(rows):
        share, low, high = (100 * part[key] for key in ("share", "low", "high"))
        error = [[max(share - low, 0)], [max(high - share, 0)]]
        colour = ACCENT if what == "all labels" else INK
        axes.errorbar(share, place, xerr=error, color=colour, marker="o", markersize=7, linewidth=2, capsize=4)
        axes.annotate(
            f"{share:.0f}", (share, place), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8.5
        )
    if threshold is not None:
        axes.axvline(100 * threshold, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            "the gate", (100 * threshold, len(rows) - 0.45), xytext=(4, 0), textcoords="offset points", color=MUTED
        )
    axes.set_yticks(range(len(rows)), [what for what, _ in rows], fontsize=10)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.set(xlim=(None, 100.5), ylim=(len(rows) - 0.3, -0.6), xlabel="right, % (95% interval)")
    words = f"{whole['share']:.1%} of the labels are right (95% interval {whole['low']:.1%} to {whole['high']:.1%})"
    words += f", by {found['verdicts']:,} {'simulated ' if found['simulated'] else ''}verdicts."
    if threshold is not None:
        words += f" The gate wants the lower end at {threshold:.1%}."
    return Plot(name, title, svg_of(figure, name), words)


@styled
def quality(scores: Mapping[str, Mapping[str, Any] | None]) -> Plot:
    """Precision, recall and F1 with 95% intervals of teacher, student and lookup (`Score.to_json`; None: missing)."""
    name, title = "quality", "Precision, recall and F1, with 95% intervals"
    there = {author: found for author, found in scores.items() if found}
    if not there:
        return Plot(name, title, "", "Not drawn: without gold answers nothing was scored. Give them with --gold FILE.")
    figure, axes = canvas()
    least = 1.0
    for place, (author, found) in enumerate(there.items()):
        colour, marker = AUTHORS[author]
        offset = (place - (len(there) - 1) / 2) * 0.2
        for x, key in enumerate(("precision", "recall", "f1")):
            value, (low, high) = found[key], found[f"{key}_interval"]
            least = min(least, low)
            error = [[max(value - low, 0)], [max(high - value, 0)]]
            label = author if not x else None
            axes.errorbar(
                x + offset, value, error, color=colour, marker=marker, markersize=7, linewidth=2, capsize=4, label=label
            )
            beside = (offset > 0) - (offset < 0) or 1
            axes.annotate(
                f"{100 * value:.0f}",
                (x + offset, high),
                xytext=(0 if len(there) < 3 else 2 * beside, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
            )
    axes.set_xticks(range(3), ["precision", "recall", "F1"], fontsize=10)
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    floor = max(0.0, np.floor((least - 0.02) * 20) / 20)
    step = 0.05 if floor > 0.7 else 0.1 if floor > 0.4 else 0.2
    axes.set(xlim=(-0.5, 2.5), ylim=(floor, 1 + (1 - floor) * 0.08), yticks=np.arange(1, floor - 1e-9, -step))
    axes.yaxis.set_major_formatter(percent)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handletextpad=0.3, columnspacing=1.6)
    missing = [author for author, found in scores.items() if not found]
    words = "; ".join(f"{author}'s F1 {found['f1']:.1%}" for author, found in there.items())
    words += f"; not measured: {', '.join(missing)}" if missing else ""
    return Plot(name, title, svg_of(figure, name), sentence(words))


@styled
def reliability(checked: Checked, calibration: Mapping[str, Any] | None) -> Plot:
    """Confidence against correctness, as given and, where there is a calibration (`Calibration.to_json`), calibrated.

    A reliability diagram in bins of equal width with Wilson intervals, counts below.
    """
    name, title = "confidence", "Confidence against correctness"
    if not checked.points:
        return Plot(name, title, "", "Not drawn: neither gold answers nor verdicts say which labels are right.")
    sure, right = (
        np.array([point[0] for point in checked.points]),
        np.array([float(point[1]) for point in checked.points]),
    )
    figure, axes = canvas()
    axes.remove()
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    bins = reliability_bins(sure, right)
    _bins(top, bins, "as the teacher gives it", ACCENT, "o", ACCENT)
    if calibration:
        calibrated = [Bin(**one) for one in calibration["bins_calibrated"]]
        _bins(top, calibrated, "calibrated", INK, "s", "none")
        top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handletextpad=0.3, columnspacing=1.6)
    top.set(ylim=(0, 1.04), ylabel="share right")
    top.yaxis.set_major_formatter(percent)
    counts = np.bincount(bin_of(sure), minlength=BINS)
    below.bar((np.arange(BINS) + 0.5) / BINS, counts, width=0.085, color=ACCENT, alpha=0.45)
    for place in np.flatnonzero(counts):
        below.text((place + 0.5) / BINS, counts[place], f"{counts[place]:,}", ha="center", va="bottom", fontsize=7.5)
    below.set(xlim=(0, 1.02), ylim=(0, counts.max() * 1.5), yticks=[], ylabel="labels", xlabel="the label's confidence")
    below.spines["left"].set_visible(False)
    below.grid(visible=False)
    words = (
        f"{len(sure):,} labels checked against {checked.source}{' (simulated)' if checked.simulated else ''}: mean "
        f"confidence {sure.mean():.1%}, right {right.mean():.1%}; expected calibration error (ECE) "
        f"{expected_calibration_error(bins):.3f}"
    )
    if calibration:
        words += f", {calibration['ece_calibrated']:.3f} once calibrated, on labels the calibration did not see"
    elif len(sure) < LEAST:
        words += f". Not calibrated: that takes {LEAST:,} checked labels, {LEAST - len(sure):,} more than there are"
    words += ". Points above the dashed line are right more often than they claim."
    return Plot(name, title, svg_of(figure, name), words)


def _bins(axes: "Axes", bins: Sequence[Bin], label: str, colour: str, marker: str, inside: str) -> None:
    axes.errorbar(
        [one.confidence for one in bins],
        [one.right for one in bins],
        [[one.right - one.low for one in bins], [one.high - one.right for one in bins]],
        label=label,
        linestyle="none",
        markersize=6,
        elinewidth=1.6,
        capsize=3,
        color=colour,
        marker=marker,
        markerfacecolor=inside,
    )


@styled
def times(seconds: Mapping[str, float]) -> Plot:
    """Wall time of each stage, in the order they ran."""
    name, title = "times", "Time per stage"
    if not seconds:
        return Plot(name, title, "", "Not drawn: no stage was timed.")
    figure, axes = canvas(height=max(1.6, 0.55 + 0.27 * len(seconds)))
    stages, spent = list(seconds), [float(value) for value in seconds.values()]
    axes.barh(stages, spent, color=ACCENT, alpha=0.85, height=0.62)
    for place, value in enumerate(spent):
        axes.annotate(duration(value), (value, place), xytext=(5, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.set(xlim=(0, max(*spent, 0.001) * 1.2), xticks=[])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)
    longest = max(seconds, key=lambda stage: seconds[stage])
    words = f"{duration(sum(spent))} in all; the longest stage is {longest}, {duration(seconds[longest])}."
    return Plot(name, title, svg_of(figure, name), words)


def duration(seconds: float) -> str:
    """Seconds as people read them: "0.4 s", "38 s", "2 min 05 s", "3 h 12 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
