"""Rounds, as Llama 3 trains: train, sample the student, keep the best of its answers, train again; the best student stays.

(Llama team 2024, arXiv:2407.21783, §4.2.) Here the first rows are the teacher's labels and people's answers. A round adds
the student's own best answers to queries that have no label to learn from, and, for DPO, pairs where it contradicts a
label that is sure.
"""

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evals.calibration import Checked, fit_calibration
from evals.metrics import Interval, Score, score
from flows.night import Night
from flows.people import answers_of, measuring
from flows.review import places
from labels.files import digest, read_json, write_json
from labels.guardrails import check_all
from labels.records import Label
from labels.split import split_of
from labels.task import Task
from student.client import StudentClient, ask_all
from student.extras import Extras
from student.near import near_duplicates
from student.preferences import Pair
from student.rows import Row
from student.sampling import Best, Sampling, sample_all
from student.selection import least_sure
from student.serve import served_student

AT_ONCE = 32
DEV = 1_000
"""Most queries that rounds are measured on, by hash."""
LEAST_DEV = 50
"""Fewer say nothing of a gain: there is one round then."""
SURE = 0.9
"""A label that a student's answer is held against in a preference pair is right with this chance at least."""


@dataclass(frozen=True)
class Trained:
    """A merged student, and how many rows and preference pairs it was trained on."""

    student: Path
    rows: int
    pairs: int


@dataclass(frozen=True)
class Round:
    """A training and what came of it: F1 on the dev split with its interval; `extras` of its rows the student gave."""

    number: int
    student: Path
    rows: int
    extras: int
    pairs: int
    f1: float
    f1_interval: Interval

    def to_json(self) -> dict[str, Any]:
        """For the summary."""
        return asdict(self) | {"student": self.student.name}


@dataclass(frozen=True)
class Rounds:
    """The student that is kept, and every round there was; none where one training is all there is."""

    student: Path
    rounds: Sequence[Round]


Train = Callable[[Extras], Trained]


def run_rounds(
    train: Train, measure: Callable[[Path], Score], sample: Callable[[Path], Extras], most: int, least_gain: float
) -> Rounds:
    """At most `most` trainings, each on what `sample` says of the student before; ended when F1 gains less than
    `least_gain` on the best so far, or there is nothing to add. The student with the highest F1 is kept, of equals the
    first.
    """
    extras, rounds = Extras(), list[Round]()
    while True:
        trained = train(extras)
        found = measure(trained.student)
        best = max((one.f1 for one in rounds), default=float("-inf"))
        rounds.append(
            Round(
                number=len(rounds) + 1,
                student=trained.student,
                rows=trained.rows,
                extras=len(extras.rows),
                pairs=trained.pairs,
                f1=found.f1,
                f1_interval=found.f1_interval,
            )
        )
        if len(rounds) == most or found.f1 - best < least_gain:
            break
        extras = sample(trained.student)
        if not extras.rows and not extras.pairs:
            break
    return Rounds(max(rounds, key=lambda one: one.f1).student, rounds)


def train_in_rounds(night: Night, dev: Mapping[str, Task], train: Train) -> Rounds:
    """The student after as many rounds as the settings allow and dev F1 pays for. One alone is not measured here.

    `dev` (see `dev_split`) must be held out of what `train` trains on.
    """
    s = night.settings.student.rounds
    if s.most == 1 or len(dev) < LEAST_DEV:
        if s.most > 1:
            night.screen.say(f"  one round alone: {len(dev)} queries to measure a second one on, {LEAST_DEV} wanted")
        return Rounds(train(Extras()).student, [])
    with Asker(night, dev) as asker:

        def train_alone(extras: Extras) -> Trained:
            asker.close()  # a server that holds the machine's memory
            return train(extras)

        done = run_rounds(train_alone, asker.measure, asker.sample, s.most, s.least_gain)
    kept = next(one for one in done.rounds if one.student == done.student)
    night.screen.say(f"  {len(done.rounds)} rounds; kept the student of round {kept.number}, dev F1 {kept.f1:.3f}")
    return done


def dev_split(night: Night) -> dict[str, Task]:
    """What rounds are measured on: of the dev split, which never is gold, people's answers and accepted labels.

    Nothing where the settings ask for one round alone: then these queries train.
    """
    if night.settings.student.rounds.most == 1:
        return {}
    said = {one.query: str(one.value) for one in night.labels if one.status == "accepted" and one.value}
    said |= {one.query: str(one.value) for one in answers_of(night)}
    ours = [query for query in said if split_of(query) == "dev" and query not in night.gold]
    return {query: night.task.parse(said[query]) for query in sorted(ours, key=lambda one: digest("dev", one))[:DEV]}


class Asker:
    """Measures and samples the student of the round there is, served as it will be (invariant 8). What a student said is
    kept in files, so that a night that died asks nothing twice.
    """

    def __init__(self, night: Night, dev: Mapping[str, Task]) -> None:
        self.night, self.dev = night, dict(dev)
        self._open, self._served = ExitStack(), ("", "")

    def __enter__(self) -> "Asker":
        """The asker itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self.close()

    def close(self) -> None:
        """Stop the server, if one runs; it starts again when asked."""
        self._open.close()
        self._served = ("", "")

    def measure(self, student: Path) -> Score:
        """The student's guarded answers against the dev split."""
        night, queries, s = self.night, sorted(self.dev), self.night.settings.student
        asked = digest("dev", student.name, night.task.version(), queries, s.dtype, s.max_tokens, s.server)
        kept = night.work / "evaluations" / f"{asked}.json"
        if not kept.exists():
            write_json(kept, asyncio.run(self._answers(self._url(student), student.name, queries)))
        said: dict[str, str | None] = json.loads(kept.read_text(encoding="utf-8"))
        found = score([(night.task.parse(text) if text else None, self.dev[query]) for query, text in said.items()])
        low, high = found.f1_interval
        night.screen.say(f"  {student.name}: dev F1 {found.f1:.3f} [{low:.3f}, {high:.3f}] on {len(queries):,} queries")
        return found

    def sample(self, student: Path) -> Extras:
        """What the student's samples add: rows for queries without a label, pairs for DPO where that is on."""
        night, s = self.night, self.night.settings.student
        without, sure = askable(night, self.dev)
        sure = sure if s.dpo.epochs else []
        sure = sure[: s.rounds.queries - len(without)]
        asked = [one.query for one in (*without, *sure)]
        sampled = self._sampled(student, [*asked, *sorted(self.dev)])
        worth = student_calibration(night, {query: sampled[query] for query in self.dev}, self.dev)
        rows, pairs = extra_rows(night, without, sampled, worth), extra_pairs(night.task, sure, sampled)
        night.screen.say(
            f"  sampled {len(asked):,} queries {s.rounds.samples} times: {len(rows):,} more rows, {len(pairs):,} pairs"
        )
        return Extras(rows, pairs)

    def _sampled(self, student: Path, queries: Sequence[str]) -> dict[str, Best | None]:
        night, s = self.night, self.night.settings.student
        how = Sampling(s.rounds.samples, s.rounds.temperature, s.max_tokens)
        name = digest("samples", student.name, night.task.version(), asdict(how), list(queries))
        kept = night.work / "samples" / f"{name}.json"
        if not kept.exists():
            url = self._url(student)
            with night.screen.bar("sampling the student", len(queries)) as advance:
                found = asyncio.run(sample_all(url, student.name, night.task, queries, how, AT_ONCE, advance))
            write_json(kept, {query: asdict(one) if one else None for query, one in zip(queries, found, strict=True)})
        said: dict[str, dict[str, Any] | None] = read_json(kept) or {}
        return {query: Best(**one) if one else None for query, one in said.items()}

    async def _answers(self, url: str, name: str, queries: Sequence[str]) -> dict[str, str | None]:
        night = self.night
        async with StudentClient(url, name, night.task, night.settings.student.max_tokens) as client:
            with night.screen.bar("the student on dev", len(queries)) as advance:
                answers = await ask_all(client, night.task, queries, AT_ONCE, advance)
        given = [(query, answer) for query, answer in zip(queries, answers, strict=True) if answer is not None]
        refused = check_all([answer for _, answer in given], [query for query, _ in given], [()] * len(given))
        passed = {query: one.to_json() for (query, one), rejection in zip(given, refused, strict=True) if not rejection}
        return {query: passed.get(query) for query in queries}

    def _url(self, student: Path) -> str:
        if self._served[0] != student.name:
            self.close()
            s = self.night.settings.student
            service = served_student(student, self.night.work / "services", s.server, s.dtype, s.start_seconds)
            with self.night.screen.waiting(f"starting vLLM with {student.name}"):
                self._served = (student.name, self._open.enter_context(service))
        return self._served[1]


def askable(night: Night, dev: Collection[str]) -> tuple[list[Label], list[Label]]:
    """The labels that can't be learnt from (rejected, failed, not sure enough) and those that are SURE, each by their
    queries' traffic; of queries that may train alone: none that measures, nor near one that does (invariant 6).
    """
    answered = {one.query for one in answers_of(night)}
    worth, least = calibrated(night), night.settings.student.data.min_confidence
    traffic = {query: events for query, (_, events) in places(night).items()}
    ours = [one for one in night.labels if one.query not in answered and one.query not in dev]
    ours.sort(key=lambda one: (-traffic[one.query], one.query))
    without = [one for one in ours if one.status != "accepted" or worth(least_sure(one)) < least]
    sure = [one for one in ours if one.status == "accepted" and worth(least_sure(one)) >= max(SURE, least)]
    most = night.settings.student.rounds.queries
    measures = measuring(night) | set(dev)
    return _far(without, measures, most), _far(sure, measures, most)


def _far(labels: Sequence[Label], measures: Collection[str], most: int) -> list[Label]:
    """The first `most` of queries that are not near to any that measures."""
    taken = list[Label]()
    for start in range(0, len(labels), most):
        some = labels[start : start + most]
        near = near_duplicates([one.query for one in some], measures)
        taken += [one for one, close in zip(some, near, strict=True) if not close]
        if len(taken) >= most:
            break
    return taken[:most]


def calibrated(night: Night) -> Callable[[float], float]:
    """The chance that a label of the teacher's of this confidence is right, where it was calibrated tonight."""
    found = read_json(night.folder / "calibration.json")
    return (lambda sure: float(np.interp(sure, found["x"], found["y"]))) if found else (lambda sure: sure)


def student_calibration(
    night: Night, sampled: Mapping[str, Best | None], dev: Mapping[str, Task]
) -> Callable[[float], float]:
    """The same of the student's best samples, learnt on the dev split; the confidence as it is where that is too small."""
    points = [
        (one.confidence, night.task.parse(one.value).items() == dev[query].items())
        for query, one in sampled.items()
        if one is not None
    ]
    calibration = fit_calibration(Checked(points, "verdicts", simulated=False), night.settings.seed)
    return calibration.calibrated if calibration else (lambda sure: sure)


def extra_rows(
    night: Night, labels: Sequence[Label], sampled: Mapping[str, Best | None], worth: Callable[[float], float]
) -> list[Row]:
    """A row for each query whose best sample is as likely right as a label must be to train."""
    place, least = places(night), night.settings.student.data.min_confidence
    rows = []
    for label in labels:
        best = sampled.get(label.query)
        if best and (sure := worth(best.confidence)) >= least:
            band, traffic = place[label.query]
            rows.append(Row(label.query, best.value, "student", band, traffic, difficulty=round(1 - sure, 4)))
    return rows


def extra_pairs(task: type[Task], labels: Sequence[Label], sampled: Mapping[str, Best | None]) -> list[Pair]:
    """(query, the label, the student's best sample) where the two differ."""
    pairs = []
    for label in labels:
        best = sampled.get(label.query)
        if best and label.value and task.parse(best.value).items() != task.parse(label.value).items():
            pairs.append((label.query, label.value, best.value))
    return pairs
