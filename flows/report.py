"""Stage: the night's summary.json and its report page."""

import json
from pathlib import Path
from typing import Any

from evals.calibration import Calibration
from evals.judge import Judgement
from evals.report import ReportData, write_report
from flows.evaluate import Measured, as_json
from flows.label import LABELLING
from flows.night import Night
from flows.people import reviewers_json, verdicts_of
from flows.publish import Head, LookupMeasured
from flows.review import checked_labels, queue_of
from labels.files import read_json, read_manifest, write_json


def summarise(
    night: Night,
    log: dict[str, int],
    corpora: dict[str, Any],
    judgement: Judgement | None,
    calibration: Calibration | None,
    student: Path,
    measured: Measured,
    checks: list[dict[str, object]],
    head: Head,
    release: str | None,
    published: bool,
    lookup: LookupMeasured | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Write the night's summary.json; returns it."""
    summary = {
        "night": night.id,
        "profile": night.settings.profile,
        "log": log,
        "retrieval": corpora,
        **{name: value for name, value in (read_json(night.folder / LABELLING) or {}).items() if name != "model"},
        "calibration": calibration.to_json() if calibration else None,
        "asked_student": measured.asked,
        "teacher": as_json(measured.teacher),
        "teacher_tail": as_json(measured.teacher_tail),
        "student": as_json(measured.student),
        "student_ratio": list(measured.ratio) if measured.ratio else None,
        "agreement": as_json(measured.agreement),
        "invalid_rate": measured.invalid_rate,
        "lookup": as_json(lookup.lookup) if lookup else None,
        "lookup_teacher": as_json(lookup.teacher) if lookup else None,
        "lookup_ratio": list(lookup.ratio) if lookup and lookup.ratio else None,
        "lookup_sources": lookup.sources if lookup else None,
        "lookup_median_ms": lookup.median_ms if lookup else None,
        "judgement": judgement.to_json() if judgement else None,
        "review": _review(night),
        "head_entries": len(head.entries),
        "head_traffic_share": round(head.traffic_share, 4),
        "release": release,
        "published": published,
        "gate": checks,
        "student_size": {"parameters": (read_manifest(student) or {}).get("parameters")},
        "student_model": student.name,
        "teacher_model": night.settings.teacher.model,
        "seconds": seconds,
    }
    write_json(night.folder / "summary.json", summary)
    return summary


def _review(night: Night) -> dict[str, Any]:
    """How far people are, how well they agree, and how many of their verdicts are on labels made anew since."""
    progress, held = queue_of(night).progress(), {one.query: one.identity for one in night.labels}
    relabelled = sum(held.get(said.query, said.identity) != said.identity for said in verdicts_of(night))
    counts = {"wanted": progress.wanted, "done": progress.done, "relabelled": relabelled}
    return counts | reviewers_json(night)


def report_night(night: Night, summary: dict[str, Any], student: Path, head: Head) -> Path:
    """Write the night's report.html; returns its path."""
    checked = checked_labels(night)
    adapter = night.work / "adapters" / str((read_manifest(student) or {})["adapter"])
    data = ReportData(
        traffic=night.queries()["traffic"].to_pylist(),
        head_cut=head.cut,
        checked=checked,
        losses=json.loads((adapter / "losses.json").read_text(encoding="utf-8")),
        rejected=[label for label in night.labels if label.status == "rejected"],
        verdicts=verdicts_of(night),
    )
    path = night.folder / "report.html"
    write_report(summary, data, path)
    return path
