"""What is published, served and rolled back on a Cluster of three: Redis 6.2, the Redis on PATH, and Valkey."""

import asyncio
from contextlib import closing

import pytest

from cache.client import connect, connect_async, read_many
from cache.diff import diff, read_generation
from cache.layout import CHANGED, PEOPLE, bucket_key, bucket_of, find, manifest_key, tail_key, unseal
from cache.memory import MIB, check_memory
from cache.people import say_people
from cache.publish import publish
from cache.release import current_release, releases, rollback, standing
from cache.server import redis_binary
from labels.errors import PublishError, ServiceError, SettingsError
from labels.services import free_port
from tests.cache.servers import server
from tests.cache.shop import publish_queries, release, rows

QUERIES = [f"query {number}" for number in range(3_500)]  # of two writes


def test_a_generation_lies_on_all_nodes_and_is_served_and_rolled_back(cluster_client):
    first = publish_queries(cluster_client, 1, *QUERIES)
    second = publish_queries(cluster_client, 2, *QUERIES, brand="acme")
    sizes = [cluster_client.dbsize(target_nodes=node) for node in cluster_client.get_primaries()]
    assert sum(sizes) == first.buckets + second.buckets + 2 + 3  # manifests; the release, its history, the generations
    assert min(sizes) > sum(sizes) / 5
    assert current_release(cluster_client) == second
    assert rollback(cluster_client) == first == current_release(cluster_client)
    assert standing(cluster_client) == releases(cluster_client) == [first, second]
    assert dict(read_generation(cluster_client, first)) == {query: value.encode() for query, value in rows(*QUERIES)}
    assert {one.kind for one in diff(cluster_client, first, second)} == {"changed"}


def test_old_and_unfinished_generations_are_removed(cluster_client):
    for number in range(1, 4):
        publish(cluster_client, rows(*QUERIES[:200]), release(number, 200), kept=2)

    def refuse(_):
        raise ServiceError("no server is ready")

    with pytest.raises(ServiceError, match="no server is ready"):
        publish(cluster_client, rows(*QUERIES[:200]), release(4, 200), ready=refuse)
    publish(cluster_client, rows("milk"), release(5, 1), kept=1)
    assert [bool(cluster_client.exists(manifest_key(f"g{number}"))) for number in range(1, 6)] == [False] * 4 + [True]
    assert sum(cluster_client.dbsize(target_nodes=node) for node in cluster_client.get_primaries()) == 1 + 1 + 3
    with pytest.raises(PublishError, match="g3 is gone"):
        rollback(cluster_client)


def test_a_lost_or_broken_bucket_is_noticed(cluster_client):
    made = publish_queries(cluster_client, 1, *QUERIES[:200])
    publish_queries(cluster_client, 2, "milk")
    cluster_client.set(bucket_key("g1", 5), "theirs")
    with pytest.raises(PublishError, match=r"r1 has a broken bucket, stillhouse:.*\{g1:5\}"):
        list(read_generation(cluster_client, made))
    cluster_client.delete(bucket_key("g1", 5))
    with pytest.raises(PublishError, match="has buckets lost or broken"):
        rollback(cluster_client)


async def _read(url, keys):
    client = connect_async(url, cluster=True)
    try:
        return await read_many(client, keys)
    finally:
        await client.aclose()


def test_a_lookup_reads_what_was_published_one_query_or_many(cluster_client, a_cluster):
    made = publish_queries(cluster_client, 1, *QUERIES)
    asked = [*QUERIES[:64], "unknown"]
    numbers = {query: bucket_of(query, made.buckets) for query in asked}
    tail = tail_key("g1", numbers["unknown"], "unknown")
    cluster_client.set(tail, "told", ex=60)

    def pair(query):
        return [bucket_key("g1", numbers[query]), tail_key("g1", numbers[query], query)]

    bucket, nothing = asyncio.run(_read(a_cluster.url, pair(asked[0])))
    assert find(unseal(bucket), asked[0]) == rows(asked[0])[0][1].encode()
    assert nothing is None
    raws = asyncio.run(_read(a_cluster.url, [key for query in asked for key in pair(query)]))
    found = [find(unseal(raw), query) for raw, query in zip(raws[::2], asked, strict=True)]
    assert found == [*(value.encode() for _, value in rows(*asked[:-1])), None]
    assert raws[1::2] == [None] * 64 + [b"told"]


def test_people_are_heard_on_whatever_node_one_listens(cluster_client, a_cluster):
    for port in a_cluster.nodes:
        with closing(connect(f"redis://127.0.0.1:{port}")) as node, node.pubsub() as channel:
            channel.subscribe(CHANGED)
            channel.get_message(timeout=5)
            say_people(cluster_client, {"milk": "[]"})
            heard = channel.get_message(timeout=5)
            assert heard
            assert heard["data"] == PEOPLE.encode()


def test_a_cluster_that_is_not_there_is_one_clear_error_without_the_password():
    with pytest.raises(ServiceError, match=r"wanted Redis at redis://127\.0\.0\.1:\d+, got.*redis_url") as caught:
        connect(f"redis://user:secret@127.0.0.1:{free_port()}", cluster=True)
    assert "secret" not in str(caught.value)


def test_one_redis_alone_is_no_cluster_and_says_so(redis_url):
    with server(redis_binary()) as url, pytest.raises(ServiceError, match=r"leave out cache\.cluster"):
        connect(url, cluster=True)
    with pytest.raises(SettingsError, match=r"unix:///path \(standalone only\)"):
        connect(redis_url, cluster=True)
    with pytest.raises(SettingsError, match=r"unix:///path \(standalone only\)"):
        connect_async(redis_url, cluster=True)


def test_a_cluster_is_checked_node_by_node(cluster_client):
    for node in cluster_client.get_primaries():
        cluster_client.config_set("maxmemory", 100 * MIB, target_nodes=node)
    try:
        assert check_memory(cluster_client, 150 * MIB) == ""
        last = cluster_client.get_primaries()[-1]
        cluster_client.config_set("maxmemory", 40 * MIB, target_nodes=last)
        with pytest.raises(PublishError, match=f"wanted 50.0 MiB .* on {last.name}, got maxmemory 40.0 MiB"):
            check_memory(cluster_client, 150 * MIB)
    finally:
        cluster_client.config_set("maxmemory", 0, target_nodes=cluster_client.PRIMARIES)
