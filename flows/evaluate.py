"""Stage: how good the teacher and the served student are on held-out gold, beside the student being served so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from evals.gate import Check, Compared, Variant, candidates
from evals.general import Regression
from evals.language import languages
from evals.latency import Latency
from evals.metrics import Interval, Pairs, Score, difference_interval, ratio_interval, score
from evals.slices import Slice, length_of, novelty, slices
from flows.night import Night
from flows.people import agreement_queries, gold_of
from flows.served import (
    footprint,
    general_loss,
    kept_answers,
    passing,
    student_answers,
    student_latency,
)
from labels.files import read_manifest
from labels.records import Release
from labels.task import Task
from student.dataset import read_dataset
from student.near import near_duplicates

LOAD_QUERIES = 1000
SAME = "it is the one being served"


@dataclass(frozen=True)
class Measured:
    """Teacher and student on held-out gold; None where there is no gold, or no served student.

    `teacher` is on all gold queries of the log, each alike; `student` on those the cache would not hold (the tail it
    is for), with `teacher_tail` and `ratio` on the same; `agreement` is the student against the teacher's labels there.
    `slices` are of all gold queries. `invalid_rate` is that of the student's `answers`, `asked` of them anew.
    """

    teacher: Score | None
    teacher_tail: Score | None
    student: Score | None
    ratio: Interval | None
    agreement: Score | None
    slices: list[Slice]
    compared: Compared
    latency: list[Latency]
    general: Regression | None
    size: dict[str, Any]
    invalid_rate: float
    answers: int
    asked: int


def measure(night: Night, student: Path, served: Release | None) -> Measured:
    """Score the teacher's labels and the served student's answers, beside those of the release `served` so far.

    The earlier student and the base, where they must be asked, are served one at a time and before this one.
    """
    answers, bands = teacher_answers(night), bands_of(night)
    gold = gold_of_log(night, student)
    wanted = gold or agreed_labels(night)
    tail = [query for query in wanted if bands[query] != "head"] or list(wanted)
    earlier, why_not = earlier_answers(night, student, served, tail)
    general = general_loss(night, student)
    given, invalid, new = student_answers(night, student, list(wanted))
    student_pairs: Pairs = [(given[query], wanted[query]) for query in tail]
    teacher_pairs: Pairs = [(answers[query], wanted[query]) for query in tail]
    agreed = [(given[query], label) for query in tail if (label := answers[query]) is not None]
    unseen = [query for query, band in bands.items() if band != "head" and query not in wanted]
    measured = Measured(
        teacher=score([(answers[query], gold[query]) for query in gold]) if gold else None,
        teacher_tail=score(teacher_pairs) if gold else None,
        student=score(student_pairs) if gold else None,
        ratio=ratio_interval(student_pairs, teacher_pairs) if gold else None,
        agreement=score(agreed) if agreed else None,
        slices=gold_slices(night.task, gold, given, answers, seen_in(night, student), bands),
        compared=compare(served, why_not, wanted, given, earlier, "gold" if gold else "labels"),
        latency=student_latency(night, student, (unseen or tail)[:LOAD_QUERIES]),
        general=general,
        size=footprint(student),
        invalid_rate=invalid,
        answers=len(wanted),
        asked=new,
    )
    _say(night, measured)
    return measured


def earlier_answers(
    night: Night, student: Path, served: Release | None, queries: Sequence[str]
) -> tuple[dict[str, Task | None], str]:
    """What the student being served answers to those queries that neither it nor a near one taught it; where there is
    nothing to compare with, nothing, and why.
    """
    if served is None:
        return {}, "nothing is released yet"
    model = night.work / "students" / served.student
    if student.name in (served.student, (read_manifest(model) or {}).get("quantised_from")):
        return {}, SAME
    if served.task != night.task.name:
        return {}, f"release {served.release} answers another task, {served.task}"
    known = near_duplicates(list(queries), trained_on(night, model))
    clean = [query for query, near in zip(queries, known, strict=True) if not near]
    if not clean:
        return {}, f"{served.student} was trained on every query that measures"
    if not read_manifest(model):  # its answers may outlive it
        held = kept_answers(night, model)
        clean = [query for query in clean if query in held]
        if not clean:
            return {}, f"{served.student} is not in {model.parent} any more, and no answer of it is kept"
    with passing(night) as apart:
        return student_answers(apart, model, clean)[0], ""


def compare(
    served: Release | None,
    why_not: str,
    wanted: Mapping[str, Task],
    given: Mapping[str, Task | None],
    earlier: Mapping[str, Task | None],
    by: str,
) -> Compared:
    """The student's answers beside the `earlier` ones of the student being served, on the queries of the latter."""
    if not served or not earlier:
        forced = served is not None and why_not == SAME and "served" in served.forced
        return Compared(served.student if served else None, why_not, forced=forced)
    ours: Pairs = [(given[query], wanted[query]) for query in earlier]
    theirs: Pairs = [(answer, wanted[query]) for query, answer in earlier.items()]
    found = score(theirs)
    return Compared(
        served.student,
        by="gold" if by == "gold" else "labels",
        queries=len(ours),
        score=found,
        difference=score(ours).f1 - found.f1,
        interval=difference_interval(ours, theirs),
    )


def gold_slices(
    task: type[Task],
    gold: Mapping[str, Task],
    student: Mapping[str, Task | None],
    teacher: Mapping[str, Task | None] | None,
    seen: set[tuple[str, str]],
    bands: Mapping[str, str] | None = None,
) -> list[Slice]:
    """The slices of the gold: by traffic band where `bands` gives them, language, length, and what training had shown."""
    if not gold:
        return []
    queries, golds = list(gold), list(gold.values())
    groups: dict[str, Sequence[str]] = {"traffic": [bands[query] for query in queries]} if bands else {}
    groups |= {"length": [length_of(query) for query in queries], "language": languages(queries)}
    groups |= {"values": novelty(golds, seen)}
    if "brand" in task.model_fields:
        groups |= {"brand": novelty(golds, seen, "brand")}
    student_pairs: Pairs = [(student[query], gold[query]) for query in queries]
    return slices(groups, student_pairs, [(teacher[query], gold[query]) for query in queries] if teacher else None)


def variant_checks(night: Night, student: Path, variants: Mapping[str, Path]) -> list[Check]:
    """Which quantised variants (name -> model folder) may be shipped in the student's place, by recall on the same gold;
    without gold on the teacher's labels. Each is served alone.
    """
    wanted = gold_of_log(night, student) or agreed_labels(night)
    given, _, _ = student_answers(night, student, list(wanted))
    whole: Pairs = [(given[query], gold) for query, gold in wanted.items()]
    found = []
    for name, model in variants.items():
        with passing(night) as apart:
            said, _, _ = student_answers(apart, model, list(wanted))
        pairs: Pairs = [(said[query], gold) for query, gold in wanted.items()]
        difference = score(pairs).recall - score(whole).recall
        found.append(Variant(name, score(pairs), difference, difference_interval(pairs, whole, figure="recall")))
    return candidates(found, night.settings.gate.recall_drop)


def gold_of_log(night: Night, student: Path) -> dict[str, Task]:
    """The gold of tonight's queries that this student is measured by; empty where there is none."""
    bands = bands_of(night)
    right = gold_of(night, trained_on(night, student), {query for query, band in bands.items() if band != "head"})
    return {query: right[query] for query in bands if query in right}


def agreed_labels(night: Night) -> dict[str, Task]:
    """Without gold: the teacher's labels that never trained, to compare the student with."""
    answers = teacher_answers(night)
    return {query: label for query in agreement_queries(night) if (label := answers[query])}


def dataset_of(night: Night, student: Path) -> Path | None:
    """The folder of what a student learnt from; None where that is gone."""
    made = read_manifest(student) or {}
    adapter = read_manifest(night.work / "adapters" / str(made.get("adapter"))) or {}
    folder = night.work / "datasets" / str(made.get("dataset") or adapter.get("dataset"))
    return folder if read_manifest(folder) else None


def trained_on(night: Night, student: Path) -> list[str]:
    """The queries that a student learnt from, as far as they are still there."""
    dataset = dataset_of(night, student)
    if dataset is None:
        return []
    pairs = pq.read_table(dataset / "preferences.parquet", columns=["query"])["query"].to_pylist()
    return list(dict.fromkeys([*(row.query for row in read_dataset(dataset)), *pairs]))


def seen_in(night: Night, student: Path) -> set[tuple[str, str]]:
    """The (field, value) pairs among the answers that a student learnt from."""
    dataset = dataset_of(night, student)
    return {item for row in read_dataset(dataset) for item in night.task.parse(row.value).items()} if dataset else set()


def teacher_answers(night: Night) -> dict[str, Task | None]:
    """The teacher's accepted answer to each of the night's queries; None where it was rejected or failed."""
    return {
        label.query: night.task.parse(label.value) if label.status == "accepted" and label.value else None
        for label in night.labels
    }


def bands_of(night: Night) -> dict[str, str]:
    """The traffic band of each of the night's queries: head, torso or tail."""
    table = night.queries()
    return dict(zip(table["query"].to_pylist(), table["band"].to_pylist(), strict=True))


def _say(night: Night, found: Measured) -> None:
    if found.teacher and found.student:
        night.screen.say(f"  teacher {say(found.teacher)} on {found.teacher.queries:,} gold queries")
        night.screen.say(f"  student {say(found.student)} on {found.student.queries:,} of them outside the head")
    for one in found.latency:
        rate = f"p50 {one.p50_ms:,.0f} ms, p99 {one.p99_ms:,.0f} ms, {one.tokens_per_second:,.0f} tokens a second"
        night.screen.say(f"  {one.at_once} at once: {rate}")


def say(found: Score | None) -> str:
    """F1 with its interval."""
    return f"F1 {found.f1:.3f} [{found.f1_interval[0]:.3f}, {found.f1_interval[1]:.3f}]" if found else "not measured"


def as_json(found: Score | None) -> dict[str, Any] | None:
    """For the summary."""
    return found.to_json() if found else None
