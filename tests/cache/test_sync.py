import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from cache.client import connect_async
from cache.lookup import Lookup
from cache.sync import SyncLookup
from labels.errors import InputError
from labels.semantic_roles import SemanticRoles
from labels.services import free_port
from tests.cache.shop import publish_queries
from tests.cache.students import Student


def looking(url, *students):
    named = {student.name: student for student in students}
    return SyncLookup(Lookup(connect_async(url), named, SemanticRoles, deadline=5.0))


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


def test_it_is_made_without_a_loop_and_ends_with_everything_down():
    with looking(f"redis://127.0.0.1:{free_port()}") as lookup:
        assert lookup.get("milk").source == "none"
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
