import time
from contextlib import closing, contextmanager, suppress

import pytest
from redis.exceptions import ResponseError

from cache.client import connect
from cache.layout import NAMES, PER_BUCKET, bucket_count, tail_key
from cache.memory import KEY_BYTES, MIB, SPARE, check_memory, forecast_bytes, line_bytes, measured_bytes
from cache.publish import publish
from cache.release import current_release
from labels.errors import PublishError
from tests.cache.servers import binaries, server
from tests.cache.shop import publish_queries, release, rows


@contextmanager
def limited(client, mebibytes, policy="noeviction"):
    """Redis with so much memory beside what it uses."""
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] + mebibytes * MIB))
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


def test_a_generation_that_does_not_fit_beside_the_old_one_is_refused_before_anything_is_written(client):
    old = publish_queries(client, 1, "milk")
    queries = [f"query {number}" for number in range(20_000)]
    with (
        limited(client, 0.3),
        pytest.raises(PublishError, match=r"wanted 1\.\d MiB for the new.*raise maxmemory, or lower"),
    ):
        publish_queries(client, 2, *queries)
    assert current_release(client) == old
    assert client.keys(f"{NAMES}{{g2*") == []
    with limited(client, 3):
        assert publish_queries(client, 2, *queries) == current_release(client)


def test_the_students_answers_make_room_where_redis_lets_them_go(client):
    publish_queries(client, 1, "milk")
    queries = [f"query {number}" for number in range(20_000)]
    with limited(client, 4):
        with suppress(ResponseError):
            for number in range(200):
                client.setex(tail_key("g1", 0, f"tail {number}"), 86_400, b"x" * 40_000)
        with pytest.raises(PublishError, match=r"in use, got maxmemory.*; set maxmemory-policy volatile-ttl"):
            publish_queries(client, 2, *queries)
        client.config_set("maxmemory-policy", "volatile-ttl")
        assert publish_queries(client, 2, *queries) == current_release(client)
        with pytest.raises(
            PublishError, match=r"wanted 100\.0 MiB .* beside the [12]\.\d MiB in use, got.*; raise maxmemory"
        ):
            check_memory(client, 100 * MIB)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_redis_that_would_evict_the_head_is_refused(client, policy):
    with (
        limited(client, 100, policy),
        pytest.raises(PublishError, match=f"got maxmemory-policy {policy}.*volatile-ttl"),
    ):
        publish_queries(client, 1, "milk")


@pytest.mark.parametrize("policy", ["noeviction", "volatile-ttl", "volatile-lru"])
def test_a_redis_that_evicts_nothing_or_the_students_answers_alone_will_do(client, policy):
    with limited(client, 100, policy):
        publish_queries(client, 1, "milk")


def test_without_a_limit_nothing_is_evicted_whatever_the_policy(client):
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        publish_queries(client, 1, "milk")
    finally:
        client.config_set("maxmemory-policy", "noeviction")


def test_a_redis_that_does_not_tell_is_published_to_and_it_is_said(client, redis_url):
    client.execute_command("ACL", "SETUSER", "mute", "reset", "on", ">secret", "~*", "&*", "+@all", "-info", "-memory")
    with closing(connect(f"{redis_url}?username=mute&password=secret")) as mute:
        done = publish(mute, rows("milk"), release(1, 1))
    assert done.written
    assert done.measured is None
    assert "Redis does not say how much memory it may use" in done.note


def test_a_forecast_grows_with_its_entries_and_is_their_sum():
    entries = rows(*[f"query {number}" for number in range(1200)])
    whole = forecast_bytes(entries)
    assert whole == pytest.approx(sum(line_bytes(*pair) * SPARE + KEY_BYTES / PER_BUCKET for pair in entries), rel=0.01)
    assert forecast_bytes(entries[:600]) < whole
    assert forecast_bytes([]) > 0


@pytest.mark.parametrize("kind", ["redis-6.2", "redis", "valkey"])
def test_the_forecast_is_what_servers_take(kind):
    if kind not in binaries():
        pytest.skip(f"no {kind} on this machine")
    entries = rows(*[f"organic {number} milk of farm {number % 97}" for number in range(20_000)])
    with server(binaries()[kind]) as url, closing(connect(url)) as client:
        publish_queries(client, 0, "milk")  # a server keeps some 20 kB for each command once it was used
        before = client.info("memory")["used_memory"]
        with closing(connect(url)) as publisher:  # what its connection takes goes with it
            done = publish(publisher, entries, release(1, len(entries)))
        while len(client.client_list()) > 1:
            time.sleep(0.01)
        taken = client.info("memory")["used_memory"] - before
        assert measured_bytes(client, "g1", bucket_count(len(entries))) == pytest.approx(taken, rel=0.15)
    assert done.forecast == pytest.approx(taken, rel=0.25)
