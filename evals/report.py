"""The night's report: one HTML page that loads nothing and runs nothing, for phone, desk and screen reader."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from evals import labelling, online_plots, plots, student_plots
from evals.calibration import Checked
from evals.published import published_rows
from labels.files import write_text
from labels.records import Label, Verdict

AUTHORS = ("teacher", "student", "lookup")
EXAMPLES = 20
MAX_SHOWN = 200
"""Characters of a query or value that the page shows; hostile ones are 100 kB long."""


@dataclass(frozen=True)
class ReportData:
    """What the plots and tables need beyond the summary; empty where there is none.

    `traffic`: of every query, falling; `head_cut`: after how many of these the head was cut, 0 without one;
    `checked`: labels known to be right or wrong, with their confidence; `training`: the curve of each step of the
    student's training (`student_plots.STEPS`), a line with step, loss, learning_rate and tokens_per_second for every few
    optimiser steps; `rejected` and `verdicts`: EXAMPLES of each are shown.
    """

    traffic: Sequence[float]
    head_cut: int
    checked: Checked
    training: Mapping[str, Sequence[Mapping[str, float]]]
    rejected: Sequence[Label]
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Tile:
    """A headline: its name, its figure or words, a line under it, and the CSS variable of its colour."""

    name: str
    value: str
    under: str
    tone: str
    figure: bool


def write_report(summary: Mapping[str, Any], data: ReportData, path: Path) -> None:
    """Write the page of one night to `path`, atomically. `summary` is the night's summary.json, as a dict.

    Whatever the night did not get to may be None or missing; the page says so. All text is escaped, control
    characters become U+FFFD, and a Content-Security-Policy forbids scripts and every outside resource: queries are written
    by strangers.
    """
    scores = {author: summary.get(author) for author in AUTHORS}
    outputs = [summary.get(key) or 0 for key in ("labelled", "rejected", "failed")]
    page = _template().render(
        summary=summary,
        data=data,
        simulated=_simulated(summary, data),
        published=bool(summary.get("published")),
        verdict=_verdict(summary),
        tiles=_tiles(summary),
        adds_up=summary.get("queries") == sum(outputs),
        asked=_asked(summary.get("asked_teacher"), summary.get("queries")),
        plots=[
            plots.quality(scores),
            plots.judgement(summary.get("judgement"), _threshold(summary)),
            plots.coverage(data.traffic, data.head_cut),
            plots.reliability(data.checked, summary.get("calibration")),
            plots.times(summary.get("seconds") or {}),
        ],
        margins=student_plots.margins(summary.get("gate") or []),
        student_plots=[
            student_plots.slices(summary.get("slices") or []),
            student_plots.kept(summary.get("dataset")),
            *(student_plots.training(curve, step) for step, curve in (data.training or {"training": ()}).items()),
            student_plots.comparisons(summary.get("comparisons") or []),
        ],
        online=summary.get("online") or {},
        online_rows=online_plots.rows(summary.get("online") or {}),
        online_words=online_plots.counted(summary.get("online") or {}),
        online_plots=online_plots.drawn(summary.get("online") or {}),
        beside=_beside(summary.get("served")),
        agreed=_agreed(summary.get("agreement")),
        left_out=_left_out(summary.get("dataset")),
        sizes={author: size for author in ("teacher", "student") if (size := summary.get(f"{author}_size"))},
        parity=_parity(summary.get("parity"), summary.get("served_parity")),
        facts=published_rows(summary),
        scores={author: found for author, found in scores.items() if found},
        fields=list(dict.fromkeys(field for found in scores.values() if found for field in found["by_field"])),
        verdicts=sorted(data.verdicts, key=lambda verdict: verdict.decision == "right")[:EXAMPLES],
        review=summary.get("review") or {},
        rejected=data.rejected[:EXAMPLES],
        turned_down=labelling.rejected_words(data.rejected),
        log=labelling.log_of(summary),
        retrieval=summary.get("retrieval"),
        teacher=labelling.teacher_rows(summary),
        flips=summary.get("flips"),
        flip_words=labelling.flip_words(summary.get("flips")),
    )
    write_text(path, "".join(char if char.isprintable() or char.isspace() else "\ufffd" for char in page))


def _template() -> jinja2.Template:
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True)
    environment.filters |= {
        "clip": _clip,
        "percent": _percent,
        "interval": _interval,
        "count": _count,
        "figure": _figure,
    }
    return environment.get_template("report.html.j2")


def _simulated(summary: Mapping[str, Any], data: ReportData) -> bool:
    judgement = summary.get("judgement") or {}
    return bool(judgement.get("simulated")) or any(verdict.simulated for verdict in data.verdicts)


def _threshold(summary: Mapping[str, Any]) -> float | None:
    """What the gate asks of the verdicts' lower bound."""
    return next((check["threshold"] for check in summary.get("gate") or [] if check["name"] == "teacher"), None)


def _verdict(summary: Mapping[str, Any]) -> str:
    """The night's outcome in one sentence."""
    release = summary.get("release")
    refused = [check["name"] for check in summary.get("gate") or [] if not check["passed"]]
    if summary.get("published"):
        forced = f", forced though the gate refused ({', '.join(refused)})" if refused else ""
        return f"Published as release {release}{forced}."
    why = f"the gate refused ({', '.join(refused)})" if refused else "the night ended before a release was made"
    return f"Not published: {why}. " + (f"Release {release} stays in use." if release else "There is no release yet.")


def _tiles(summary: Mapping[str, Any]) -> list[Tile]:
    tiles = []
    for author, tone in zip(AUTHORS, AUTHORS, strict=True):
        if found := summary.get(author):
            under = f"95% interval {_interval(found['f1_interval'])}"
            tiles.append(Tile(f"{author.capitalize()} F1", _percent(found["f1"]), under, tone, figure=True))
        else:
            tiles.append(Tile(f"{author.capitalize()} F1", "not measured", "no gold answers", tone, figure=False))
    share, entries = summary.get("head_traffic_share"), summary.get("head_entries")
    if entries and share is not None:
        tiles.append(Tile("Head traffic share", _percent(share), f"{entries:,} queries", "muted", figure=True))
    else:
        tiles.append(Tile("Head traffic share", "no head", "nothing was published", "muted", figure=False))
    checks = summary.get("gate") or []
    good = sum(bool(check["passed"]) for check in checks)
    outcome, tone = ("published", "good") if summary.get("published") else ("not published", "bad")
    under = f"{good} of {len(checks)} gate checks passed" if checks else "the gate was not reached"
    return [*tiles, Tile("Release", outcome, under, tone, figure=False)]


def _asked(asked: int | None, queries: int | None) -> str:
    if asked is None:
        return "How often the teacher was asked was not counted."
    if asked == 0:
        return "The teacher was asked nothing: every label was there already."
    if asked == queries:
        return "The teacher was asked about every one of them."
    return f"The teacher was asked about {asked:,}; the others' labels were there already."


def _beside(found: Mapping[str, Any] | None) -> str:
    """The night's student beside the one that was served until then."""
    if not found:
        return "The student was not compared with one being served."
    if found.get("difference") is None:
        return f"Not compared with a student that is being served: {found.get('why_not') or 'it was not measured'}."
    low, high = (100 * end for end in found["interval"])
    on = "gold queries" if found["by"] == "gold" else "of the teacher's labels, for want of gold"
    return (
        f"Against {found['served']}, which was being served, its F1 is {100 * found['difference']:+.1f} points (95% interval "
        f"{low:+.1f} to {high:+.1f}), on {found['queries']:,} {on}."
    )


def _agreed(found: Mapping[str, Any] | None) -> str:
    """How far the student says what the teacher says; nothing where it was not measured."""
    if not found:
        return ""
    return (
        f"Held against the teacher's labels, right or wrong, its F1 is {_percent(found['f1'])} (95% interval "
        f"{_interval(found['f1_interval'])}), on {found['queries']:,} queries that it did not learn from."
    )


LEFT_OUT = {
    "rejected": "turned down by a guardrail",
    "failed": "failed",
    "held_out": "queries that measure",
    "near_gold": "near a query that measures",
    "unsure": "less sure than student.data.min_confidence",
    "collapsed": "the same as another, or nearly",
    "not_drawn": "not drawn: there were enough",
}


def _left_out(dataset: Mapping[str, Any] | None) -> list[tuple[str, int]]:
    """How many labels did not train, by the reason in words; reasons that none had left out."""
    counts = (dataset or {}).get("left_out") or {}
    return [(LEFT_OUT.get(reason, reason.replace("_", " ")), count) for reason, count in counts.items() if count]


def _parity(found: Mapping[str, Any] | None, served: Mapping[str, Any] | None) -> str:
    """What the merge kept of the adapter, and the server of the merge."""
    if not found:
        return ""
    told = f"The merged student's logits differ from its adapter's by {found['max_logit_difference']:.1g} at most"
    told += f" ({found['bound']:g} allowed)" if "bound" in found else ""
    told = f"{told}, on {found['queries']:,} queries."
    if not served:
        return told
    return (
        f"{told} The server's log-probabilities differ from the merged student's by {served['max_difference']:.1g} at most, "
        f"and {served['same_answers']:.1%} of its answers are the same."
    )


def _clip(value: object, most: int = MAX_SHOWN) -> str:
    """At most `most` characters."""
    text = str(value)
    return text if len(text) <= most else text[:most] + "…"


def _figure(value: float | None) -> str:
    return f"{value:,.4g}" if isinstance(value, int | float) else "–"


def _percent(value: float | None) -> str:
    return f"{100 * value:.1f}%" if isinstance(value, int | float) else "not measured"


def _interval(value: Sequence[float] | None) -> str:
    return f"{100 * value[0]:.1f} to {100 * value[1]:.1f}%" if value else "not measured"


def _count(value: int | None) -> str:
    return f"{value:,}" if isinstance(value, int | float) else "no"
