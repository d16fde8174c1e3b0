"""The students on disk, to commands and nights: the list, metrics and card, quantised candidates, what may go."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from cache.client import connect
from cache.release import current_release, standing
from evals.gate import Check
from evals.metrics import Interval, Score
from flows.evaluate import Measured, dataset_of, measure, variant_checks
from flows.night import Night
from flows.online import redis_client
from flows.served import passing
from flows.settings import Settings
from labels.errors import EngineError, ServiceError
from labels.files import read_manifest
from labels.records import Release
from student.model_card import write_card
from student.quantise import quantise
from student.registry import Figure, collect, figures_of, record_metrics, students

COUNTS = {
    "labels": "labels of the night",
    "rows": "rows",
    "verified": "rows whose answer people gave or confirmed",
    "corrected": "rows whose answer people changed",
    "pairs": "preference pairs",
    "replay": "general instruction rows",
}
"""What the dataset's manifest counts, in the model card's words."""


def list_students(settings: Settings) -> list[dict[str, Any]]:
    """A row a student, the oldest first: what it was made of, its F1 by its night, its size, whether it is served now."""
    served = None
    if settings.cache.redis_url or (settings.folder / "redis").exists():
        with redis_client(settings) as client:
            release = current_release(client)
            served = release.student if release else None
    rows = []
    for one in students(settings.folder / "students"):
        measured = {figure.name: figure.value for figure in figures_of(one.metrics)}
        rows.append(
            {
                "version": one.version,
                "created": one.created[:16],
                "parent": one.parent,
                "dataset": one.dataset,
                "quantised_from": one.quantised_from,
                "f1": round(measured["F1"], 4) if "F1" in measured else None,
                "gib": round(one.gib, 4),
                "serving": one.version == served,
            }
        )
    return rows


def evaluate_student(night: Night, student: Path, before: Release | None) -> tuple[Path, list[Check], Measured]:
    """What to ship, the student or a quantised variant of it; the checks of the variants; what was measured of what ships."""
    if not night.settings.student.quantised:
        measured = measure(night, student, before)
        record_student(night, student, measured)
        return student, [], measured
    with passing(night) as apart:
        measured = measure(apart, student, before)
    record_student(night, student, measured)
    shipped, checks = choose_variant(night, student)
    if shipped != student:  # what is gated is what is served: all of it, not its recall alone
        measured = replace(measure(night, shipped, before), asked=measured.asked)
        record_student(night, shipped, measured)
    return shipped, checks, measured


def record_student(night: Night, student: Path, measured: Measured) -> None:
    """Write what the night measured beside the student, and its model card."""
    _record(night, student, list(_figures(measured)))


def _record(night: Night, student: Path, figures: list[Figure]) -> None:
    dataset = dataset_of(night, student)
    facts = (read_manifest(dataset) or {}) if dataset else {}
    counts = {words: facts[name] for name, words in COUNTS.items() if name in facts}
    record_metrics(student, night.id, figures, counts)
    write_card(student, night.task)


def _figures(measured: Measured) -> Iterator[Figure]:
    """What a night measured of a student, as its card shows it."""
    if found := measured.student:
        yield from _score_figures(found, f"{found.queries:,} gold queries outside the head")
        if measured.ratio and measured.teacher_tail and measured.teacher_tail.f1:
            ratio = found.f1 / measured.teacher_tail.f1
            yield _figure("F1 over the teacher's", ratio, "the same queries", measured.ratio)
    if agreed := measured.agreement:
        yield _figure("F1 against the teacher's labels", agreed.f1, f"{agreed.queries:,} queries", agreed.f1_interval)
    yield Figure("invalid answers", measured.invalid_rate, f"{measured.answers:,} queries")
    if (general := measured.general) and general.accuracy_loss is not None:
        on = f"{general.questions:,} general questions"
        yield _figure("general ability lost", general.accuracy_loss, on, general.accuracy_loss_interval)
    if (general := measured.general) and general.perplexity_rise is not None:
        on = f"{general.tokens:,} tokens of general text"
        yield _figure("perplexity risen", general.perplexity_rise, on, general.perplexity_rise_interval)
    for one in measured.latency:
        on = f"{one.requests:,} requests, {one.at_once} at once"
        yield Figure("p50", one.p50_ms, on, unit="ms")
        yield Figure("p99", one.p99_ms, on, unit="ms")
        yield Figure("tokens a second", one.tokens_per_second, on)


def _score_figures(found: Score, on: str) -> Iterator[Figure]:
    yield _figure("F1", found.f1, on, found.f1_interval)
    yield _figure("precision", found.precision, on, found.precision_interval)
    yield _figure("recall", found.recall, on, found.recall_interval)
    yield _figure("macro F1", found.macro_f1, on, found.macro_f1_interval)
    yield _figure("exact match", found.exact, on, found.exact_interval)
    for name, part in found.by_field.items():
        yield _figure(f"F1 of {name}", part.f1, on, part.f1_interval)


def _figure(name: str, value: float, on: str, interval: Interval | None) -> Figure:
    low, high = interval or (None, None)
    return Figure(name, value, on, low, high)


def quantised_candidates(night: Night, student: Path) -> dict[str, Path]:
    """The variants that the settings ask for, by name, made where they are not there."""
    found = dict[str, Path]()
    for scheme in night.settings.student.quantised:
        with night.screen.waiting(f"quantising to {scheme}"):
            found[scheme], _ = quantise(student, scheme)
        facts: dict[str, Any] = read_manifest(found[scheme]) or {}
        night.screen.say(f"  {found[scheme].name}: the worst layer's weights are {facts['weight_error']:.1%} off")
    return found


def choose_variant(night: Night, student: Path) -> tuple[Path, list[Check]]:
    """What to ship: the smallest of the student's quantised variants that may be, else the student; and a check a variant.

    Nothing but a variant is served meanwhile, so no server of the student may be open: measure it within `passing`. One
    that can't be served here is not shipped, and its check says why; the night goes on.
    """
    variants, checks = quantised_candidates(night, student), list[Check]()
    for name, variant in variants.items():
        try:
            [check] = variant_checks(night, student, {name: variant})
            checks.append(check)
            on = "the same gold, else the teacher's labels"
            _record(night, variant, [_figure("recall less the student's", check.figure or 0.0, on, check.interval)])
        except (ServiceError, EngineError) as error:
            why = str(error).partition("\n")[0].rstrip(":")  # the log's end follows: it lies beside
            drop = -night.settings.gate.recall_drop
            checks.append(Check(name, False, None, drop, f"{name} could not be served: {why}", unit="points"))
    for check in checks:
        night.screen.say(f"  {'[green]may be shipped[/]' if check.passed else 'not shipped'}: {escape(check.message)}")
    fit = [variants[check.name] for check in checks if check.passed]
    return min(fit, key=_size, default=student), checks


def _size(model: Path) -> int:
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


def collect_students(night: Night, *spared: Path) -> list[str]:
    """Remove students beyond the number kept, but for `spared` ones and those of releases that can be served; returns
    the versions removed.
    """
    with closing(connect(night.redis_url)) as client:
        named = {release.student for release in standing(client)} | {model.name for model in spared}
    keep = night.settings.student.keep
    gone = collect(night.work / "students", night.work / "adapters", night.work / "bases", keep, named)
    if gone:
        night.screen.say(
            f"  removed {', '.join(gone)}: {keep} students are kept beside those of releases (student.keep)"
        )
    return gone
