"""Stages: publish the head with its student as one release, then measure lookup as callers meet it."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from cache.answer import Answer
from cache.canonical import canonical
from cache.client import Client, connect, connect_async
from cache.diff import read_generation
from cache.head import Head, coverage
from cache.journal import Journal
from cache.layout import LAYOUT, bucket_count
from cache.lookup import Lookup
from cache.memory import MIB, measured_bytes
from cache.publish import publish
from cache.release import current_release
from evals.metrics import Interval, Score, ratio_interval, score
from flows.corrections import resync
from flows.evaluate import say, teacher_answers
from flows.head import say_forecast, traffic_of
from flows.night import Night
from flows.online import ready_within
from flows.people import answers_of
from labels.files import digest, write_json
from labels.normalise import NORMALISATION_VERSION
from labels.records import Release
from labels.task import Task
from student.client import StudentClient

AT_ONCE = 16
PUBLISHED = "published.json"


def publish_release(night: Night, head: Head, student: Path, forced: Sequence[str] = ()) -> Release:
    """Publish the head and switch to it, unless it is what is served already; returns the release served.

    The switch waits until every server of lookups has the student ready, for as long as a start may take. Then what
    is there is counted and held against the forecast. `forced` names the gate's checks that failed and were overridden. They
    are part of the release's name: what was forced stays in the history beside the same head and student let through by
    evidence, whichever comes first.
    """
    release = release_of(night, head, student, forced)
    screen, settings = night.screen, night.settings
    say_forecast(night, head)

    with closing(connect(night.redis_url, settings.cache.cluster)) as client:
        before = current_release(client)
        ready = ready_within(settings, client, lambda text: screen.say(f"  {escape(text)}"))
        done = publish(client, head.lines, release, kept=settings.cache.kept_generations, ready=ready)
        resync(night, client)
        served = current_release(client) or release
        found = published_json(night, client, served, head.labelled)
    write_json(night.folder / PUBLISHED, found)
    same = before and before.release == served.release
    size = "unknown memory" if found["bytes"] is None else f"{found['bytes'] / MIB:,.1f} MiB"
    screen.say(
        f"  release {served.release} {'is what is served already' if same else 'is served'}: {found['entries']:,} entries are"
        f" there, for {found['traffic_share']:.1%} of the traffic, in {size}"
    )
    if done.note:
        screen.say(f"  [yellow]not checked:[/] {done.note}")
    if served.forced:
        screen.say(f"  [red]forced[/] past the gate's checks: {', '.join(served.forced)}; the release says so")
    return served


def release_of(night: Night, head: Head, student: Path, forced: Sequence[str] = ()) -> Release:
    """The release of a head and a student. It and its generation are named by what they hold."""
    facts = LAYOUT, NORMALISATION_VERSION, night.task.name, night.task.version()
    generation = "g" + digest(
        *facts, sorted(head.lines)
    )  # sorted: the same answers are the same, whatever their traffic
    return Release(
        release="r" + digest(generation, student.name, *sorted(forced))[:10],
        generation=generation,
        student=student.name,
        task=night.task.name,
        night=night.id,
        task_version=night.task.version(),
        entries=len(head.entries),
        buckets=bucket_count(len(head.entries)),
        normalisation=NORMALISATION_VERSION,
        traffic_share=round(head.hit_rate, 4),
        canonical=bool(head.aliases),
        forced=tuple(forced),
    )


def published_json(night: Night, client: Client, release: Release, labelled: float) -> dict[str, float | int | None]:
    """What of a release is there: its entries, the share of tonight's traffic they answer, and its bytes (None: Redis
    does not say). Tonight's queries are the share `labelled` of it.
    """
    traffic, held = traffic_of(night), {query for query, _ in read_generation(client, release)}
    answered = held
    if release.canonical:
        forms = set(map(canonical, held))
        answered = {query for query, _ in traffic if canonical(query) in forms}
    return {
        "entries": len(held),
        "traffic_share": round(coverage(traffic, answered) * labelled, 4),
        "bytes": measured_bytes(client, release.generation, release.buckets),
    }


def serving(night: Night) -> Release | None:
    """The release being served now."""
    with closing(connect(night.redis_url, night.settings.cache.cluster)) as client:
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
    url, settings = night.student_url(student), night.settings
    gate = asyncio.Semaphore(AT_ONCE)
    async with StudentClient(url, student.name, night.task, settings.student.max_tokens) as client:
        lookup = Lookup(
            connect_async(night.redis_url, settings.cache.cluster),
            {student.name: client},
            night.task,
            deadline=settings.cache.deadline_ms / 1000,
            process_entries=0,  # what Redis and the student do is measured, not what a process remembers
            tail_seconds=0,
            journal=Journal(days=False, misses=False),  # what is measured is no shopper's traffic
        )
        async with lookup:
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
