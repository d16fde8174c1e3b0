import asyncio
import json

import httpx
from prometheus_client.parser import text_string_to_metric_families

from cache.http import create_app
from cache.layout import NAMES
from cache.metrics import Metrics, add_up
from cache.shared import COUNTS_BYTES, Shared
from tests.cache.shop import Broken, Echo, looking, publish_queries


def read(text):
    """Every figure by its name and labels (these by their names)."""
    return {
        (sample.name.removeprefix("stillhouse_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def figures_after(redis_url, student, queries):
    """/metrics after these single lookups, a batch of two and a bad question."""
    app = create_app(lambda: looking(redis_url, student))

    async def ask():
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http,
        ):
            for query in queries:
                await http.get("/v1/lookup", params={"q": query})
            await http.post("/v1/lookup", json={"queries": ["milk", "milk"]})
            await http.get("/v1/lookup")
            return await http.get("/metrics")

    return asyncio.run(ask())


def test_the_figures_are_what_happened(redis_url, client):
    publish_queries(client, 1, "milk", "oat milk")
    answer = figures_after(redis_url, Echo(), ["milk", "milk", "rye", "rye"])
    assert answer.headers["content-type"].startswith("text/plain")
    found = read(answer.text)
    answers = {source: found["answer_seconds_count", source] for source in ("cache", "tail-cache", "student", "none")}
    assert answers == {"cache": 4, "tail-cache": 1, "student": 1, "none": 0}
    assert found["answer_seconds_bucket", "+Inf", "cache"] == 4
    assert 0 < found["answer_seconds_sum", "cache"] < 60
    assert found["process_hits_total",] == 2
    assert (found["http_requests_total", "200"], found["http_requests_total", "400"]) == (5, 1)
    assert found["misses_total",] == 2
    assert found["release", "g1", "r1", "s1"] == 1
    assert found["release_entries", "r1"] == 2
    assert found["breaker_state", "closed"] == 1
    assert found["refused_total", "corrupted"] == found["redis_trouble",] == 0
    assert found["student_in_flight",] == found["student_queue",] == 0


def test_a_failing_student_and_a_corrupted_entry_are_seen(redis_url, client):
    publish_queries(client, 1, "milk")
    [bucket] = list(client.scan_iter(f"{NAMES}{{g1:*"))
    client.setrange(bucket, 12, b"XX")
    found = read(figures_after(redis_url, Broken(), [f"tail {n}" for n in range(6)]).text)
    assert found["breaker_opened_total",] == 1
    assert found["breaker_state", "open"] == 1
    assert found["refused_total", "corrupted"] > 0
    assert found["answer_seconds_count", "none"] == 8


def test_a_redis_that_is_away_is_seen():
    found = read(figures_after("redis://127.0.0.1:1", Echo(), ["milk"]).text)
    assert found["redis_trouble",] == 1


def test_latency_buckets_only_grow(redis_url, client):
    publish_queries(client, 1, "milk")
    found = read(figures_after(redis_url, Echo(), ["milk", "rye"]).text)
    for source in ("cache", "student"):
        buckets = [n for name, n in found.items() if name[0] == "answer_seconds_bucket" and name[2] == source]
        assert buckets == sorted(buckets)
        assert buckets[-1] == found["answer_seconds_count", source]


def test_processes_are_added_up_and_a_new_one_goes_on_from_the_dead(redis_url, client):
    publish_queries(client, 1, "milk")

    async def tell():
        shared = Shared(2)
        async with looking(redis_url) as one, looking(redis_url) as other:
            await one.get("milk")
            await one.get("milk")
            await other.get("milk")
            release = (await one.current())[0]
            Metrics(one, lambda: {"statuses": {"200": 2}, "process_hits": 1}, shared, 0).tell(release)
            second = Metrics(other, lambda: {"statuses": {"200": 1, "400": 1}, "process_hits": 0}, shared, 1)
            together = read(second.text(release).decode())
        async with looking(redis_url) as new:  # in the dead first one's place
            await new.get("milk")
            release = (await new.current())[0]
            later = Metrics(new, lambda: {"statuses": {"200": 1}, "process_hits": 0}, shared, 0).text(release)
        return together, read(later.decode())

    together, later = asyncio.run(tell())
    assert together["answer_seconds_count", "cache"] == 3
    assert (together["http_requests_total", "200"], together["http_requests_total", "400"]) == (3, 1)
    assert together["release", "g1", "r1", "s1"] == 2
    assert together["release_entries", "r1"] == 1
    assert later["answer_seconds_count", "cache"] == 4
    assert later["http_requests_total", "200"] == 4


def test_numbers_told_are_read_back_and_half_told_ones_are_not():
    shared = Shared(2)
    assert shared.told(1) == b""
    shared.tell(1, b'{"a": 1}')
    assert json.loads(shared.told(1)) == {"a": 1}
    assert shared.told(0) == b""
    shared._counts[COUNTS_BYTES + 20] ^= 1  # as a writer would leave it that was killed
    assert shared.told(1) == b""


def test_what_stands_under_one_name_is_added():
    assert add_up([{"a": 1, "b": {"x": [1, 2]}}, {"b": {"x": [3, 4], "y": 5}}, {}]) == {
        "a": 1,
        "b": {"x": [4, 6], "y": 5},
    }
