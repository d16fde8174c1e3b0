"""Servers get a coming student ready, publishers wait for those that live, and nobody waits for the dead."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from cache.client import connect_async
from cache.layout import COMING, RELEASE, SERVERS, release_json
from cache.roll import GONE, Roller, live_servers, wait_ready
from labels.errors import PublishError, ServiceError
from labels.records import Release

FIRST = Release("r1", "g1", "s1", "semantic_roles", "n1", "v", 1, 1, 1)
SECOND = replace(FIRST, release="r2", generation="g2", student="s2")
SECONDS = 20.0  # a hang guard: what is waited for comes within a beat or two


class Shelf:
    """Students as a serving process has them: `missing` can't be started, for the reason it gives."""

    def __init__(self, **missing):
        self.ready, self.missing, self.started, self.stopped = set(), missing, [], []
        self.times = []  # of the starts
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def held(self):
        return set(self.started) - set(self.stopped)

    async def hold(self, student):
        self.started.append(student)
        self.times.append(time.monotonic())
        await self.gate.wait()
        if student in self.missing:
            raise ServiceError(self.missing[student])
        self.ready.add(student)

    async def let_go(self, student):
        self.ready.discard(student)
        self.stopped.append(student)


@asynccontextmanager
async def serving(url, shelf, linger=0.2, said=None):
    """A serving process whose lookups follow the pointer at once."""

    async def nothing_else():
        return None

    say = (said if said is not None else []).append
    async with (
        connect_async(url) as client,
        Roller(client, shelf, nothing_else, linger, say, say) as roller,
    ):
        yield roller


async def until(happened):
    """Wait for what must come."""
    async with asyncio.timeout(SECONDS):
        while not happened():
            await asyncio.sleep(0.02)


def publish_to(client, release, seconds=SECONDS):
    """As a publisher does it: wait, then switch."""
    wait_ready(client, release, seconds, lambda _: None)
    client.set(RELEASE, release_json(release))


def test_without_servers_a_publisher_waits_for_nobody_and_announces_nothing(client):
    wait_ready(client, FIRST, SECONDS, pytest.fail)
    assert not client.exists(COMING)


def test_a_switch_waits_until_every_server_has_the_student_ready_and_then_the_old_one_goes(client, redis_url):
    async def roll():
        first, second = Shelf(), Shelf()
        client.set(RELEASE, release_json(FIRST))
        async with serving(redis_url, first), serving(redis_url, second):
            await until(lambda: first.ready == second.ready == {"s1"})
            second.gate.clear()
            switched = asyncio.create_task(asyncio.to_thread(publish_to, client, SECOND))
            await until(lambda: "s2" in first.ready and "s2" in second.started)
            await asyncio.sleep(1)
            assert not switched.done(), "it did not wait for the second server"
            assert first.ready == {"s1", "s2"}, "the old student went before the switch"
            second.gate.set()
            await switched
            await until(lambda: first.ready == second.ready == {"s2"})
            assert first.stopped == second.stopped == ["s1"]

    asyncio.run(roll())


def test_a_server_that_fails_refuses_the_release_by_name_and_reason_and_a_second_try_begins_anew(client, redis_url):
    async def roll():
        shelf = Shelf(s2="no such folder")
        client.set(RELEASE, release_json(FIRST))
        async with serving(redis_url, shelf):
            await until(lambda: shelf.ready == {"s1"})
            with pytest.raises(PublishError, match=r"process \d+: can't get student s2 ready: no such folder"):
                await asyncio.to_thread(publish_to, client, SECOND)
            assert not client.exists(COMING)
            assert json.loads(client.get(RELEASE))["release"] == "r1"
            shelf.missing.clear()
            await asyncio.to_thread(publish_to, client, SECOND)
            assert shelf.started == ["s1", "s2", "s2"]

    asyncio.run(roll())


def test_a_server_that_is_too_slow_refuses_the_release_and_what_it_still_starts_is_let_go(client, redis_url):
    async def roll():
        shelf = Shelf()
        client.set(RELEASE, release_json(FIRST))
        async with serving(redis_url, shelf):
            await until(lambda: shelf.ready == {"s1"})
            shelf.gate.clear()
            with pytest.raises(PublishError, match="student s2 was not ready within 1 s"):
                await asyncio.to_thread(publish_to, client, SECOND, 1.0)
            shelf.gate.set()
            await until(lambda: shelf.stopped == ["s2"])
            assert shelf.ready == {"s1"}

    asyncio.run(roll())


def test_a_server_that_died_is_not_waited_for(client, redis_url):
    now = client.time()[0]
    dead = {"name": "elsewhere, process 7", "ready": [], "release": None}
    client.hset(SERVERS, "old", json.dumps(dead | {"time": now - GONE - 1}))
    client.hset(SERVERS, "dying", json.dumps(dead | {"time": now - GONE + 2}))
    client.hset(SERVERS, "foreign", b"\xff no server")
    wait_ready(client, FIRST, SECONDS, lambda _: None)
    assert client.time()[0] >= now + 2, "it did not wait for one that may live"


def test_a_server_that_leaves_is_forgotten_at_once_and_one_long_dead_by_the_next_publisher(client, redis_url):
    async def come_and_go():
        async with serving(redis_url, Shelf()):
            await until(lambda: client.hlen(SERVERS))
            assert [server.state for server in live_servers(client)] == [""]

    asyncio.run(come_and_go())
    assert not client.hlen(SERVERS)
    client.hset(SERVERS, "old", json.dumps({"name": "x", "time": 0, "ready": [], "release": None}))
    assert live_servers(client) == []
    assert not client.hlen(SERVERS)


def test_going_back_while_the_old_student_still_drains_does_not_start_it_again(client, redis_url):
    async def roll():
        shelf = Shelf()
        client.set(RELEASE, release_json(FIRST))
        async with serving(redis_url, shelf, linger=60):
            await until(lambda: shelf.ready == {"s1"})
            for release in (SECOND, FIRST, SECOND):
                await asyncio.to_thread(publish_to, client, release)
            assert (shelf.started, shelf.stopped) == (["s1", "s2"], [])

    asyncio.run(roll())


def test_of_two_publishers_at_once_the_earlier_is_refused(client, redis_url):
    async def roll():
        shelf = Shelf()
        client.set(RELEASE, release_json(FIRST))
        third = replace(FIRST, release="r3", student="s3")
        async with serving(redis_url, shelf):
            await until(lambda: shelf.ready == {"s1"})
            shelf.gate.clear()
            earlier = asyncio.create_task(asyncio.to_thread(publish_to, client, SECOND))
            await until(lambda: "s2" in shelf.started)
            later = asyncio.create_task(asyncio.to_thread(publish_to, client, third))
            with pytest.raises(PublishError, match="release r3 is being published at the same time"):
                await earlier
            shelf.gate.set()
            await later
            assert json.loads(client.get(RELEASE))["release"] == "r3"

    asyncio.run(roll())


def test_a_student_that_dies_while_serving_is_started_again_and_a_failing_start_not_in_a_storm(client, redis_url):
    async def roll():
        shelf, said = Shelf(), []
        client.set(RELEASE, release_json(FIRST))
        async with serving(redis_url, shelf, said=said):
            await until(lambda: shelf.ready == {"s1"})
            shelf.missing["s1"] = "no memory"
            shelf.ready.clear()
            await until(lambda: "student s1 is not ready: no memory" in said)
            shelf.missing.clear()
            await until(lambda: shelf.ready == {"s1"})
            assert len(shelf.started) == 3
            assert shelf.times[2] - shelf.times[1] > 1, (
                "it does not wait between tries: a beat is a quarter of a second"
            )
            assert said[-1] == "student s1 is ready"

    asyncio.run(roll())


@pytest.mark.parametrize("pointer", [None, b"\xff no release"])
def test_a_pointer_lost_or_broken_stops_no_student(client, redis_url, pointer):
    async def roll():
        shelf = Shelf()
        client.set(RELEASE, release_json(FIRST))
        async with serving(redis_url, shelf, linger=0) as roller:
            await until(lambda: shelf.ready == {"s1"})
            client.delete(RELEASE) if pointer is None else client.set(RELEASE, pointer)
            for _ in range(3):
                await roller.beat()
            assert shelf.ready == {"s1"}

    asyncio.run(roll())
