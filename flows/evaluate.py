"""Stage: how good the teacher, the served student and the lookup are on held-out gold."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evals.metrics import Interval, Score, ratio_interval, score
from flows.night import Night
from flows.people import gold_of
from labels.errors import InputError, PreflightError
from labels.files import digest, read_manifest, write_json
from labels.guardrails import check
from labels.prompt import messages
from labels.task import Task
from student.client import StudentClient, ask_all
from student.dataset import read_dataset

AT_ONCE = 32
AGREEMENT_QUERIES = 1000
RENDERED_QUERIES = 8

Pairs = Sequence[tuple[Task | None, Task]]


@dataclass(frozen=True)
class Measured:
    """Teacher and student on held-out gold; None where there is no gold, or no served student.

    `teacher` is on all gold queries of the log, each alike; `student` on those the cache would not hold (the tail it
    is for), with `teacher_tail` and `ratio` on the same; `agreement` is the student against the teacher's labels.
    """

    teacher: Score | None
    teacher_tail: Score | None
    student: Score | None
    ratio: Interval | None
    agreement: Score | None
    invalid_rate: float
    asked: int


def measure(night: Night, student: Path) -> Measured:
    """Score the teacher's labels and the served student's answers; the student is asked once for the same question."""
    answers, head = teacher_answers(night), head_band(night)
    queries = night.queries()["query"].to_pylist()
    right = gold_of(night, trained_on(night, student), {query for query in queries if query not in head})
    gold = [query for query in queries if query in right]
    tail = [query for query in gold if query not in head] or gold
    asked = tail or held_out_labels(night)
    given, invalid, new = student_answers(night, student, asked)
    if not gold:
        against = [(given[query], label) for query in asked if (label := answers[query]) is not None]
        return Measured(None, None, None, None, score(against) if against else None, invalid, new)
    teacher = score([(answers[query], right[query]) for query in gold])
    teacher_pairs: Pairs = [(answers[query], right[query]) for query in tail]
    student_pairs: Pairs = [(given[query], right[query]) for query in tail]
    labelled = [(given[query], label) for query in tail if (label := answers[query]) is not None]
    measured = Measured(
        teacher=teacher,
        teacher_tail=score(teacher_pairs),
        student=score(student_pairs),
        ratio=ratio_interval(student_pairs, teacher_pairs),
        agreement=score(labelled) if labelled else None,
        invalid_rate=invalid,
        asked=new,
    )
    night.screen.say(f"  teacher {say(measured.teacher)} on {len(gold):,} gold queries")
    night.screen.say(f"  student {say(measured.student)} on {len(tail):,} of them outside the head")
    return measured


def student_answers(night: Night, student: Path, queries: Sequence[str]) -> tuple[dict[str, Task | None], float, int]:
    """The served student's guarded answer to each query, the share that was invalid, and how many were asked anew.

    An answer is None where it was invalid or a guardrail refused it. Answers are kept by student and query set, so
    that the same question is not asked on another night.
    """
    kept = night.work / "evaluations" / f"{digest(student.name, night.task.version(), list(queries))}.json"
    new = 0
    if kept.exists():
        night.screen.say("  the same student on the same queries: measured before")
    else:
        write_json(kept, dict(zip(queries, asyncio.run(_ask(night, student, queries)), strict=True)))
        new = len(queries)
    stored: dict[str, str | None] = json.loads(kept.read_text(encoding="utf-8"))
    parsed = {query: night.task.parse(text) if text else None for query, text in stored.items()}
    guarded = {query: None if not answer or check(answer, query) else answer for query, answer in parsed.items()}
    return guarded, sum(answer is None for answer in parsed.values()) / len(parsed), new


async def _ask(night: Night, student: Path, queries: Sequence[str]) -> list[str | None]:
    url = night.student_url(student)
    async with StudentClient(url, student.name, night.task, night.settings.student.max_tokens) as client:
        await _check_rendering(night, client, student, queries[:RENDERED_QUERIES])
        with night.screen.bar("the served student answers", len(queries)) as advance:
            answers = await ask_all(client, night.task, queries, AT_ONCE, advance)
    return [answer.to_json() if answer else None for answer in answers]


async def _check_rendering(night: Night, client: StudentClient, student: Path, queries: Sequence[str]) -> None:
    """What the student was trained on must be, token for token, what the server shows it (invariants 7 and 8)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student)
    for query in queries:
        trained = tokenizer.apply_chat_template(
            messages(night.task, query), tokenize=True, add_generation_prompt=True, return_dict=False
        )
        served = await client.rendered(query)
        if served != trained:
            raise PreflightError(f"the server renders {query!r} as {served}, training rendered it as {trained}")


def trained_on(night: Night, student: Path) -> list[str]:
    """The queries that a student learnt from."""
    adapter = night.work / "adapters" / str((read_manifest(student) or {})["adapter"])
    dataset = night.work / "datasets" / str((read_manifest(adapter) or {})["dataset"])
    return [row.query for row in read_dataset(dataset)]


def teacher_answers(night: Night) -> dict[str, Task | None]:
    """The teacher's accepted answer to each of the night's queries; None where it was rejected or failed."""
    return {
        label.query: night.task.parse(label.value) if label.status == "accepted" and label.value else None
        for label in night.labels
    }


def head_band(night: Night) -> frozenset[str]:
    """The queries in the head by traffic."""
    queries = night.queries()
    is_head = np.asarray(queries["band"].to_pylist()) == "head"
    return frozenset(np.asarray(queries["query"].to_pylist(), dtype=object)[is_head])


def held_out_labels(night: Night) -> list[str]:
    """Without gold: tail queries with an accepted label, by hash, to compare student and teacher on."""
    head = head_band(night)
    tail = [one.query for one in night.labels if one.status == "accepted" and one.query not in head]
    if not tail:
        raise InputError(
            "the night has no accepted label outside the head to measure the student on; give a longer log"
        )
    return sorted(tail, key=lambda query: digest("agreement", query))[:AGREEMENT_QUERIES]


def say(found: Score | None) -> str:
    """F1 with its interval."""
    return f"F1 {found.f1:.3f} [{found.f1_interval[0]:.3f}, {found.f1_interval[1]:.3f}]" if found else "not measured"


def as_json(found: Score | None) -> dict[str, Any] | None:
    """For the summary."""
    return found.to_json() if found else None
