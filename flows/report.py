"""Stage: the night's summary.json and its report page."""

from pathlib import Path
from typing import Any

from cache.head import Head
from evals.calibration import Calibration
from evals.judge import Judgement
from evals.latency import Latency
from evals.report import ReportData, write_report
from flows.evaluate import Measured, as_json, dataset_of
from flows.head import head_json
from flows.label import LABELLING
from flows.night import Night
from flows.people import reviewers_json, verdicts_of
from flows.publish import PUBLISHED, LookupMeasured
from flows.review import checked_labels, queue_of
from flows.served import footprint
from flows.train import rounds_of
from labels.files import read_json, read_manifest, write_json
from student.history import FILE, read_history
from student.parity import SERVED


def summarise(
    night: Night,
    log: dict[str, int],
    corpora: dict[str, Any],
    judgement: Judgement | None,
    calibration: Calibration | None,
    student: Path,
    measured: Measured,
    checks: list[dict[str, object]],
    variants: list[dict[str, object]],
    head: Head,
    release: str | None,
    published: bool,
    lookup: LookupMeasured | None,
    seconds: dict[str, float],
    online: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the night's summary.json; returns it. `online`: what the days of lookups say (`watch_lookups`)."""
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
        "slices": [part.to_json() for part in measured.slices],
        "served": measured.compared.to_json(),
        "latency": [one.to_json() for one in measured.latency],
        "general": measured.general.to_json() if measured.general else None,
        "lookup": as_json(lookup.lookup) if lookup else None,
        "lookup_teacher": as_json(lookup.teacher) if lookup else None,
        "lookup_ratio": list(lookup.ratio) if lookup and lookup.ratio else None,
        "lookup_sources": lookup.sources if lookup else None,
        "lookup_median_ms": lookup.median_ms if lookup else None,
        "online": online,
        "judgement": judgement.to_json() if judgement else None,
        "review": _review(night),
        "head_entries": len(head.entries),
        "head_traffic_share": round(head.hit_rate, 4),
        "head": head_json(head, read_json(night.folder / PUBLISHED)),
        "release": release,
        "published": published,
        "gate": checks,
        "variants": variants,
        "rounds": rounds_of(night),
        "student_size": measured.size | {"tokens_per_second": _fastest(measured.latency)},
        "teacher_size": footprint(night.settings.teacher.model) | {"tokens_per_second": _labelling_rate(night)},
        "dataset": read_manifest(dataset) if (dataset := dataset_of(night, student)) else None,
        "pretraining": read_manifest(base_of(night, student)),
        "parity": (read_manifest(student) or {}).get("parity"),
        "served_parity": read_json(student / SERVED),
        "student_model": student.name,
        "teacher_model": night.settings.teacher.model,
        "seconds": seconds,
    }
    write_json(night.folder / "summary.json", summary)
    return summary


def _fastest(latency: list[Latency]) -> float | None:
    """Tokens a second with as many callers as serve it best."""
    return max((one.tokens_per_second for one in latency), default=None)


def _labelling_rate(night: Night) -> float | None:
    """Tokens a second that the teacher wrote this night; None where it was asked nothing."""
    done = read_json(night.folder / LABELLING) or {}
    tokens, seconds = (done.get("tokens") or {}).get("out"), done.get("label_seconds")
    return round(tokens / seconds, 1) if tokens and seconds else None


def _review(night: Night) -> dict[str, Any]:
    """How far people are, how well they agree, and how many of their verdicts are on labels made anew since."""
    progress, held = queue_of(night).progress(), {one.query: one.identity for one in night.labels}
    relabelled = sum(held.get(said.query, said.identity) != said.identity for said in verdicts_of(night))
    counts = {"wanted": progress.wanted, "done": progress.done, "relabelled": relabelled}
    return counts | reviewers_json(night)


def base_of(night: Night, student: Path) -> Path:
    """Where the base that was pretrained further for this student lies; there is none where it was not."""
    return night.work / "bases" / Path(((read_manifest(student) or {}).get("recipe") or {}).get("base", "none")).name


def curves_of(night: Night, student: Path) -> dict[str, list[dict[str, float]]]:
    """The curve of each step that made the student, the first one first: an adapter's manifest names its parent."""
    found, name = dict[str, list[dict[str, float]]](), (read_manifest(student) or {}).get("adapter")
    while made := read_manifest(folder := night.work / "adapters" / str(name)):
        if (folder / FILE).exists():
            found[made.get("kind", "training")] = read_history(folder)
        name = made.get("parent")
    if (base_of(night, student) / FILE).exists():
        found["pretrain"] = read_history(base_of(night, student))
    return dict(reversed(found.items()))


def report_night(night: Night, summary: dict[str, Any], student: Path, head: Head) -> Path:
    """Write the night's report.html; returns its path."""
    checked = checked_labels(night)
    data = ReportData(
        traffic=night.queries()["traffic"].to_pylist(),
        head_cut=head.cut,
        checked=checked,
        training=curves_of(night, student),
        rejected=[label for label in night.labels if label.status == "rejected"],
        verdicts=verdicts_of(night),
    )
    path = night.folder / "report.html"
    write_report(summary, data, path)
    return path
