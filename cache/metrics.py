"""The service's figures for Prometheus: read from plain numbers when they are asked for, so that no question pays for them.

Of several processes any one may be asked. Each puts its numbers where the others find them twice a second
(`cache.shared`), and the one asked adds them up. A process started in place of a dead one goes on from that one's counts.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from cache.journal import BOUNDS
from cache.lookup import Lookup
from cache.shared import Shared
from labels.records import Release

__all__ = ["CONTENT_TYPE", "Metrics"]

Numbers = dict[str, Any]
"""Numbers, lists of numbers and dicts of these."""
STATES = ("closed", "half-open", "open")
REFUSED = ("corrupted", "queue full", "student's answer")
"""What lookups turn down; told before it happens too: a rate is taken only between two figures."""


class Metrics:
    """The figures of one process, and of all together."""

    def __init__(self, lookup: Lookup, http: Callable[[], Numbers], shared: Shared, worker: int) -> None:
        """`http` gives the HTTP side's counts."""
        self._lookup, self._http, self._shared, self._worker = lookup, http, shared, worker
        died = shared.told(worker)
        self._before: Numbers = json.loads(died)["counts"] if died else {}

    def tell(self, release: Release | None, trouble: str = "") -> None:
        """Put this process's numbers where the others find them; the release and the trouble are `Lookup.current`'s."""
        self._shared.tell(self._worker, json.dumps(self._numbers(release, trouble)).encode())

    def text(self, release: Release | None, trouble: str = "") -> bytes:
        """All processes' figures together, in Prometheus's text format."""
        self.tell(release, trouble)
        told = [self._shared.told(worker) for worker in range(self._shared.workers)]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Told(add_up(json.loads(one) for one in told if one)))
        return generate_latest(registry)

    def _numbers(self, release: Release | None, trouble: str) -> Numbers:
        lookup, counts = self._lookup, self._lookup.journal.counts
        mine: Numbers = {
            "latency": counts.latency,
            "milliseconds": counts.milliseconds,
            "refused": dict.fromkeys(REFUSED, 0) | counts.refused,
            "misses": counts.misses,
            "lost": counts.lost,
            "flush_failures": lookup.journal.failures,
            "opened": lookup.breaker.opened,
            **self._http(),
        }
        now: Numbers = {
            "in_flight": lookup.flights.under_way,
            "waiting": lookup.flights.waiting,
            "journal": lookup.journal.waiting,
            "breaker": {lookup.breaker.state: 1},
            "trouble": int(bool(trouble)),
            "release": {json.dumps([release.release, release.generation, release.student]): 1} if release else {},
            "entries": {release.release: release.entries} if release else {},
            "forecast": {release.release: release.traffic_share} if release else {},
        }
        return {"counts": add_up([self._before, mine]), "now": now}


def add_up(parts: Iterable[Numbers]) -> Numbers:
    """The sums of what stands under the same names."""
    total: Numbers = {}
    for part in parts:
        for name, value in part.items():
            total[name] = _sum(total[name], value) if name in total else value
    return total


def _sum(a: Any, b: Any) -> Any:  # noqa: ANN401 - a number, or a list or dict of them
    if isinstance(a, dict):
        return add_up([a, b])
    return [x + y for x, y in zip(a, b, strict=True)] if isinstance(a, list) else a + b


class _Told(Collector):
    """Numbers as metric families."""

    def __init__(self, numbers: Numbers) -> None:
        self.counts, self.now = numbers["counts"], numbers["now"]

    def collect(self) -> Iterable[Metric]:
        counts, now = self.counts, self.now
        yield self._latency()
        yield _count("process_hits", "Single lookups answered from the process's own memory.", counts["process_hits"])
        yield _counts("http_requests", "Requests, by status.", "status", counts["statuses"])
        yield _counts(
            "refused",
            "What was turned down: corrupted entries, a full queue, a student's answer.",
            "what",
            counts["refused"],
        )
        yield _count("misses", "Queries the head had no answer for.", counts["misses"])
        yield _count("misses_lost", "Those of them that never reached the stream.", counts["lost"])
        yield _count("flush_failures", "Times the journal could not be written to Redis.", counts["flush_failures"])
        yield _count("breaker_opened", "Times the student was found failing.", counts["opened"])
        yield _gauge("student_in_flight", "Questions the student is answering.", now["in_flight"])
        yield _gauge("student_queue", "Questions that wait for the student.", now["waiting"])
        yield _gauge("journal_waiting", "Different missed queries that wait for Redis.", now["journal"])
        yield _gauge("redis_trouble", "Processes that can't reach Redis, or find no release there.", now["trouble"])
        states = GaugeMetricFamily(
            "stillhouse_breaker_state", "Processes whose student's circuit breaker is so.", labels=["state"]
        )
        for state in STATES:
            states.add_metric([state], now["breaker"].get(state, 0))
        yield states
        yield from self._release()

    def _latency(self) -> Metric:
        """By source, in seconds; its `_count` is the number of answers."""
        family = HistogramMetricFamily("stillhouse_answer_seconds", "Time an answer took.", labels=["source"])
        for source, buckets in self.counts["latency"].items():
            cumulative, so_far = [], 0
            for bound, count in zip(BOUNDS, buckets, strict=True):
                so_far += count
                cumulative.append(("+Inf" if bound == inf else f"{bound / 1000:g}", so_far))
            family.add_metric([source], cumulative, self.counts["milliseconds"][source] / 1000)
        return family

    def _release(self) -> Iterable[Metric]:
        served = GaugeMetricFamily(
            "stillhouse_release", "Processes that serve it.", labels=["release", "generation", "student"]
        )
        for names, processes in self.now["release"].items():
            served.add_metric(json.loads(names), processes)
        yield served
        processes = {json.loads(names)[0]: n for names, n in self.now["release"].items()}
        for name, help_, key in (
            ("stillhouse_release_entries", "Entries of its generation.", "entries"),
            (
                "stillhouse_forecast_hit_rate",
                "Share of the traffic it is expected to answer from the head.",
                "forecast",
            ),
        ):
            family = GaugeMetricFamily(name, help_, labels=["release"])
            for release, total in self.now[key].items():
                family.add_metric([release], total / processes[release])
            yield family


def _count(name: str, help_: str, value: float) -> Metric:
    return CounterMetricFamily(f"stillhouse_{name}", help_, value=value)


def _counts(name: str, help_: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"stillhouse_{name}", help_, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stillhouse_{name}", help_, value=value)
