import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager, closing

import pytest
from redis import Redis

from cache.client import connect, connect_async
from cache.layout import CHANGED, PEOPLE, RELEASE, entry, release_json
from cache.people import say_people
from cache.server import local_redis
from cache.watch import Watch
from labels.semantic_roles import SemanticRoles
from tests.cache.servers import binaries, cluster, server
from tests.cache.shop import publish_queries, release, value
from tests.cache.students import Student, looking_with, seen

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@asynccontextmanager
async def watching(url):
    refused, changes = [], []
    redis = connect_async(url)
    watch = Watch(redis, SemanticRoles, lambda before, after: changes.append((before, after)), refused.append)
    watch.refused, watch.changes = refused, changes
    watch.start()
    try:
        yield watch
    finally:
        await watch.aclose()
        await redis.aclose()


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def serves(watch, name):
    return lambda: watch.state.release is not None and watch.state.release.release == name and not watch.away


def said(brand):
    return entry(value("milk", brand), 1.0, "person", 1_700_000_000)


async def test_the_first_state_is_waited_for_and_every_change_is_told_once(client, redis_url):
    publish_queries(client, 1, "milk")
    async with watching(redis_url) as watch:
        await watch.first(5.0)
        assert serves(watch, "r1")()
        publish_queries(client, 2, "milk")
        await until(serves(watch, "r2"))
        client.publish(CHANGED, RELEASE)  # nothing has changed
        await asyncio.sleep(0.1)
    states = [(before.release and before.release.release, after.release.release) for before, after in watch.changes]
    assert states == [(None, "r1"), ("r1", "r2")]


async def test_a_change_nobody_told_of_is_seen_within_a_second_or_so(client, redis_url):
    publish_queries(client, 1, "milk")
    async with watching(redis_url) as watch:
        await watch.first(5.0)
        client.hset(PEOPLE, "milk", said("acme"))
        client.set(RELEASE, release_json(release(2, 1)))
        await until(serves(watch, "r2"))
        await until(lambda: "milk" in watch.state.people)


async def test_what_people_said_is_read_again_where_it_is_told_and_what_is_broken_is_left_out(client, redis_url):
    publish_queries(client, 1, "milk")
    client.hset(PEOPLE, "tea", "junk")
    async with watching(redis_url) as watch:
        await watch.first(5.0)
        assert (dict(watch.state.people), watch.refused) == ({}, ["corrupted"])
        for brand in ("one", "two"):  # the second leaves as many entries as there were
            say_people(client, {"milk": said(brand)})
            await until(lambda b=brand: b.encode() in getattr(watch.state.people.get("milk"), "value_json", b""))
        found = watch.state.people["milk"]
    assert (found.source, found.confidence, found.made) == ("cache", 1.0, 1_700_000_000)


async def test_what_people_say_counts_while_the_release_is_lost_and_is_not_lost_with_it(client, redis_url):
    publish_queries(client, 1, "milk")
    say_people(client, {"milk": said("one")})
    async with watching(redis_url) as watch:
        await until(lambda: "milk" in watch.state.people)
        client.delete(RELEASE)
        say_people(client, {"milk": said("two")})
        await until(lambda: b"two" in watch.state.people["milk"].value_json)
        client.flushall()
        client.publish(CHANGED, RELEASE)
        say_people(client, {"tea": said("three")})
        await until(lambda: "tea" in watch.state.people)
        assert watch.state.release.release == "r1"


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_a_connection_that_breaks_is_made_anew(client, redis_url, kind):
    publish_queries(client, 1, "milk")
    async with looking_with(redis_url, process_entries=0) as lookup:
        await seen(lookup, "r1")
        killed = client.client_kill_filter(_type=kind, skipme=True)
        assert killed >= 1
        publish_queries(client, 2, "milk")
        await seen(lookup, "r2")
        assert (await lookup.get("milk")).release == "r2"


async def test_a_frozen_redis_is_noticed_without_a_question_and_so_is_its_thaw(tmp_path):
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        publish_queries(client, 1, "milk")
        pid = json.loads((tmp_path / "service.json").read_text())["pid"]
        async with watching(url) as watch:
            await watch.first(5.0)
            os.kill(pid, signal.SIGSTOP)
            try:
                await until(lambda: watch.away)
                assert watch.away == "Redis gave no answer in 1000 ms"
                assert watch.state.release.release == "r1"
            finally:
                os.kill(pid, signal.SIGCONT)
            await until(serves(watch, "r1"))
    assert len(watch.changes) == 1


async def test_an_old_protocol_in_the_url_is_no_hindrance(client, redis_url):
    publish_queries(client, 1, "milk")
    async with looking_with(f"{redis_url}?protocol=2") as lookup:
        await seen(lookup, "r1")
        publish_queries(client, 2, "milk")
        await seen(lookup, "r2")
        assert (await lookup.get("milk")).release == "r2"


async def test_a_user_who_may_not_hear_of_changes_is_told_so():
    with server(binaries()["redis"]) as url, closing(Redis.from_url(url)) as client:
        client.acl_setuser("shop", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
        async with watching(url.replace("redis://", "redis://shop:secret@")) as watch:
            await watch.first(5.0)
            assert "channel" in watch.away
            assert "secret" not in watch.away


@pytest.mark.parametrize("kind", ["redis-6.2", "valkey"])
async def test_it_works_on_other_servers(kind):
    with server(binaries()[kind]) as url, closing(connect(url)) as client:
        publish_queries(client, 1, "milk")
        async with looking_with(url, Student()) as lookup:
            assert [one.source for one in await lookup.get_many(["milk", "rye"])] == ["cache", "student"]
            publish_queries(client, 2, "milk")
            await seen(lookup, "r2")


async def test_on_a_cluster_it_reads_from_all_nodes_and_hears_of_changes():
    queries = [f"query {number}" for number in range(200)]
    with cluster(binaries()["redis"]) as nodes, closing(connect(nodes.url, cluster=True)) as client:
        publish_queries(client, 1, *queries)
        async with looking_with(nodes.url, Student(), cluster=True, process_entries=0) as lookup:
            await seen(lookup, "r1")
            answers = await lookup.get_many([*queries, "rye"])
            assert [answer.source for answer in answers] == ["cache"] * 200 + ["student"]
            assert [answer.value["product"] for answer in answers[:200]] == queries
            publish_queries(client, 2, *queries, brand="two")
            await seen(lookup, "r2")
            ones = await asyncio.gather(*map(lookup.get, queries))
            assert {(one.source, one.release, one.value["brand"]) for one in ones} == {("cache", "r2", "two")}
            next(iter(nodes.nodes.values())).kill()
            down = await asyncio.gather(*map(lookup.get, queries))
            assert {one.source for one in down} <= {"cache", "student"}
            assert [one.value["product"] for one in down] == queries
