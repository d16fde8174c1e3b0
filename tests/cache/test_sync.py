import asyncio
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from cache.client import connect, connect_async
from cache.lookup import Lookup
from cache.server import local_redis
from cache.sync import SyncLookup
from labels.errors import InputError
from labels.semantic_roles import SemanticRoles
from labels.services import free_port
from tests.cache.shop import publish_queries
from tests.cache.students import Student


def looking(url, *students, cluster=False, **options):
    named = {student.name: student for student in students}
    return SyncLookup(Lookup(connect_async(url, cluster), named, SemanticRoles, **{"deadline": 5.0} | options))


class Blocking(Student):
    """A student that holds up its whole loop."""

    def __init__(self):
        super().__init__()
        self.holds, self.free = threading.Event(), threading.Event()

    async def ask(self, query):
        self.holds.set()
        self.free.wait(10)
        return await super().ask(query)


def test_it_answers_as_the_lookup_does(client, redis_url):
    publish_queries(client, 1, "milk", brand="acme")
    with looking(redis_url, Student()) as lookup:
        first, again = lookup.get("Milk"), lookup.get("Milk")
        many = lookup.get_many(["milk", "rye", "milk"])
        release, reason = lookup.current()
        with pytest.raises(InputError, match="wanted a query"):
            lookup.get(" ")
    assert (first.query, first.value["brand"], first.source) == ("milk", "acme", "cache")
    assert again.value == first.value
    assert [answer.source for answer in many] == ["cache", "student", "cache"]
    assert (release.release, reason) == ("r1", "")


def test_many_threads_share_it(client, redis_url):
    queries = [f"query {number}" for number in range(100)]
    publish_queries(client, 1, *queries)
    student = Student(seconds=0.2)
    with looking(redis_url, student) as lookup, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lookup.get, queries * 3))
        rare = list(threads.map(lookup.get, ["rye"] * 16))
    assert [answer.value["product"] for answer in answers] == queries * 3
    assert {answer.value["product"] for answer in rare} == {"rye"}
    assert student.asked == ["rye"]


def test_what_the_process_holds_is_answered_without_the_loop(client, redis_url):
    publish_queries(client, 1, "milk")
    with looking(redis_url) as lookup:
        lookup.get("milk")
    assert lookup.get("milk").source == "cache"  # its loop is closed


def test_a_hit_in_redis_does_not_wait_for_the_loop(client, redis_url):
    publish_queries(client, 1, "milk", "tea")
    student = Blocking()
    with looking(redis_url, student) as lookup, ThreadPoolExecutor(1) as threads:
        lookup.current()
        rare = threads.submit(lookup.get, "rye")
        assert student.holds.wait(10)
        client.config_resetstat()
        assert lookup.get("milk").source == "cache"
        assert [answer.source for answer in lookup.get_many(["tea", "milk"])] == ["cache", "cache"]
        assert client.info("commandstats")["cmdstat_mget"]["calls"] == 2
        assert not rare.done()
        student.free.set()
        assert rare.result().source == "student"


@pytest.mark.parametrize("a_cluster", ["redis"], indirect=True)
def test_of_a_cluster_each_node_is_read_without_the_loop(cluster_client, a_cluster):
    queries = [f"query {number}" for number in range(200)]
    publish_queries(cluster_client, 1, *queries)
    student = Blocking()
    with looking(a_cluster.url, student, cluster=True, process_entries=0) as lookup, ThreadPoolExecutor(1) as threads:
        lookup.current()
        rare = threads.submit(lookup.get, "rye")
        assert student.holds.wait(10)
        answers = [*lookup.get_many(queries), lookup.get("query 7")]
        assert not rare.done()
        student.free.set()
    assert [answer.value["product"] for answer in answers] == [*queries, "query 7"]
    assert {answer.source for answer in answers} == {"cache"}


def test_redis_killed_frozen_and_back_is_answered_in_time(tmp_path):
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        publish_queries(client, 1, "milk")
        with looking(url, Student(), deadline=3.0, process_entries=0, tail_seconds=0) as lookup:
            assert lookup.get("milk").source == "cache"
            pid = json.loads((tmp_path / "service.json").read_text())["pid"]
            os.kill(pid, signal.SIGSTOP)
            frozen = [lookup.get("milk") for _ in range(5)]
            os.kill(pid, signal.SIGCONT)
            assert {answer.source for answer in frozen} == {"student"}
            assert frozen[0].milliseconds < 3000
            # Nobody waits for it twice: its share alone is 1,000. The least, since a busy machine may hold up any one.
            assert min(answer.milliseconds for answer in frozen[1:]) < 900
            while lookup.current()[1]:
                pass
            assert lookup.get("milk").source == "cache"
            os.kill(pid, signal.SIGKILL)
            assert lookup.get("milk").source == "student"
            with local_redis(tmp_path):
                while lookup.current()[1]:
                    pass
                assert lookup.get("milk").source == "cache"


def test_it_is_made_without_a_loop_and_ends_with_everything_down():
    with looking(f"redis://127.0.0.1:{free_port()}") as lookup:
        assert lookup.get("milk").source == "none"
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
