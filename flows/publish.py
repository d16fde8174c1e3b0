"""Stages: publish the head with its student as one release, then measure lookup as callers meet it."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cache.client import connect, connect_async
from cache.head import choose_head, coverage
from cache.layout import entry
from cache.lookup import Answer, Lookup
from cache.publish import current_release, publish
from evals.metrics import Interval, Score, ratio_interval, score
from flows.evaluate import say, teacher_answers
from flows.night import Night
from flows.people import answers_of
from labels.files import digest, write_json
from labels.normalise import NORMALISATION_VERSION
from labels.records import Release
from labels.task import Task
from student.client import StudentClient

AT_ONCE = 16


@dataclass(frozen=True)
class Head:
    """What the cache is to hold: entries, most frequent first, their share of all traffic, and the rank of the cut."""

    entries: list[tuple[str, str]]
    traffic_share: float
    cut: int


def head_of(night: Night) -> Head:
    """The head by traffic, people's answers first, then the teacher's accepted labels."""
    table = night.queries()
    queries = list(zip(table["query"].to_pylist(), table["traffic"].to_pylist(), strict=True))
    values = publishable(night)
    chosen = choose_head(queries, values, night.settings.cache.head_share)
    rank = {query: place for place, (query, _) in enumerate(queries, start=1)}
    share = coverage(queries, chosen).traffic_share
    return Head([(query, values[query]) for query in chosen], share, max((rank[query] for query in chosen), default=0))


def publishable(night: Night) -> dict[str, str]:
    """The cache entry of every query that has an answer fit to publish."""
    entries = {
        label.query: entry(label.value, min(label.confidence.values(), default=0.0), "teacher")
        for label in night.labels
        if label.status == "accepted" and label.value
    }
    for said in answers_of(night):
        entries[said.query] = entry(str(said.value), 1.0, "simulated reviewer" if said.simulated else "person")
    return entries


def publish_release(night: Night, head: Head, student: Path, forced: Sequence[str] = ()) -> Release:
    """Publish the head and switch to it, unless it is what is served already; returns the release served.

    `forced` names the gate's checks that failed and were overridden. They are part of the release's name: what was forced
    stays in the history beside the same head and student let through by evidence, whichever comes first.
    """
    generation = "g" + digest(NORMALISATION_VERSION, night.task.version(), head.entries)
    release = Release(
        release="r" + digest(generation, student.name, *sorted(forced))[:10],
        generation=generation,
        student=student.name,
        task=night.task.name,
        night=night.id,
        entries=len(head.entries),
        normalisation=NORMALISATION_VERSION,
        forced=tuple(forced),
    )
    with closing(connect(night.redis_url)) as client:
        before = current_release(client)
        publish(client, head.entries, release)
        served = current_release(client) or release
    same = before and before.release == served.release
    night.screen.say(
        f"  release {served.release} {'is what is served already' if same else 'is served'}: "
        f"{len(head.entries):,} entries, {head.traffic_share:.1%} of the traffic"
    )
    if served.forced:
        night.screen.say(f"  [red]forced[/] past the gate's checks: {', '.join(served.forced)}; the release says so")
    return served


def serving(night: Night) -> Release | None:
    """The release being served now."""
    with closing(connect(night.redis_url)) as client:
        return current_release(client)


@dataclass(frozen=True)
class LookupMeasured:
    """Lookup on held-out gold weighted by traffic: its score, its F1 over the teacher's, answers by source, latency."""

    lookup: Score
    teacher: Score
    ratio: Interval | None
    sources: dict[str, int]
    median_ms: dict[str, float]


def measure_lookup(night: Night, release: Release, student: Path) -> LookupMeasured | None:
    """Ask the real lookup every gold query of the log; None without gold. Answers are kept by release and queries.

    Queries with a verdict are left out: their answer in the cache may come from the very gold it would be scored by.
    """
    table = night.queries()
    traffic = dict(zip(table["query"].to_pylist(), table["traffic"].to_pylist(), strict=True))
    judged = {said.query for said in answers_of(night)}
    gold = [query for query in traffic if query in night.gold and query not in judged]
    if not gold:
        return None
    kept = night.work / "evaluations" / f"{digest('lookup', release.release, gold)}.json"
    if not kept.exists():
        write_json(kept, asyncio.run(_look_up(night, student, gold)))
    found = json.loads(kept.read_text(encoding="utf-8"))
    pairs: Sequence[tuple[Task | None, Task]] = [
        (night.task(**found[query]["value"]) if found[query]["value"] else None, night.gold[query]) for query in gold
    ]
    answers = teacher_answers(night)
    teacher_pairs = [(answers[query], night.gold[query]) for query in gold]
    weights = [traffic[query] for query in gold]
    sources = [found[query]["source"] for query in gold]
    times = {source: sorted(f["ms"] for f in found.values() if f["source"] == source) for source in set(sources)}
    measured = LookupMeasured(
        lookup=score(pairs, weights),
        teacher=score(teacher_pairs, weights),
        ratio=ratio_interval(pairs, teacher_pairs, weights),
        sources={source: sources.count(source) for source in sorted(times)},
        median_ms={source: values[len(values) // 2] for source, values in sorted(times.items())},
    )
    night.screen.say(f"  lookup {say(measured.lookup)} weighted by traffic; answered by {measured.sources}")
    return measured


async def _look_up(night: Night, student: Path, queries: Sequence[str]) -> dict[str, dict[str, object]]:
    url = night.student_url(student)
    settings = night.settings
    gate = asyncio.Semaphore(AT_ONCE)
    async with (
        StudentClient(url, student.name, night.task, settings.student.max_tokens) as client,
        Lookup(connect_async(night.redis_url), client, night.task, settings.cache.deadline_ms / 1000) as lookup,
    ):
        with night.screen.bar("lookup answers", len(queries)) as advance:

            async def one(query: str) -> Answer:
                async with gate:
                    answer = await lookup.get(query)
                    advance(1)
                    return answer

            start = time.perf_counter()
            answers = await asyncio.gather(*(one(query) for query in queries))
            night.screen.say(f"  {len(queries) / (time.perf_counter() - start):,.0f} lookups a second")
    return {
        query: {"value": answer.value, "source": answer.source, "ms": answer.milliseconds, "reason": answer.reason}
        for query, answer in zip(queries, answers, strict=True)
    }
