import asyncio
import json
import os
import signal
import threading
import time
import unicodedata
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.client import CONNECTIONS, connect, connect_async
from cache.layout import RELEASE, query_key
from cache.lookup import Lookup
from cache.publish import publish, rollback
from cache.server import local_redis
from labels.errors import InputError
from labels.normalise import MAX_QUERY_CHARS, normalise
from labels.semantic_roles import SemanticRoles
from labels.services import free_port
from tests.cache.shop import Broken, Echo, Says, looking, publish_queries, release, rows, value

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def nowhere():
    return f"redis://127.0.0.1:{free_port()}"


async def test_a_hit_comes_from_the_cache_whatever_its_case_and_spaces(client, redis_url):
    publish_queries(client, 1, "whole milk", brand="acme")
    async with looking(redis_url, Broken()) as lookup:
        answer = await lookup.get("  Whole\tMILK ")
    assert answer.query == "whole milk"
    assert answer.value == {"product": "whole milk", "brand": "acme", "attributes": []}
    assert (answer.source, answer.release, answer.confidence, answer.reason) == ("cache", "r1", 0.9, "")
    assert answer.milliseconds > 0


async def test_a_miss_is_answered_by_the_student(client, redis_url):
    publish_queries(client, 1, "milk")
    async with looking(redis_url, Echo()) as lookup:
        answer = await lookup.get("Oat Milk")
    assert answer.value == {"product": "oat milk", "brand": "", "attributes": []}
    assert (answer.source, answer.release, answer.confidence, answer.reason) == ("student", "r1", 0.5, "")


async def test_many_are_answered_in_order_and_a_repeated_miss_is_asked_once(client, redis_url):
    publish_queries(client, 1, "milk", "tea")
    student = Echo()
    async with looking(redis_url, student) as lookup:
        answers = await lookup.get_many(["tea", "rye", "milk", "RYE", "oats"])
        assert await lookup.get_many([]) == []
    assert [(answer.query, answer.source) for answer in answers] == [
        ("tea", "cache"),
        ("rye", "student"),
        ("milk", "cache"),
        ("rye", "student"),
        ("oats", "student"),
    ]
    assert sorted(student.asked) == ["oats", "rye"]


async def test_a_known_release_costs_one_command(client, redis_url):
    publish_queries(client, 1, "milk", "tea")
    async with looking(redis_url) as lookup:
        await lookup.get("milk")
        client.config_resetstat()
        await lookup.get("milk")
        await lookup.get_many(["milk", "tea"])
    calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in client.info("commandstats").items()}
    assert calls.pop("mget") == 2
    assert not any(name.startswith(("get", "exists", "multi", "eval")) for name in calls)


@pytest.mark.parametrize("query", ["", "  \t\n", "\x00\x1f", "x" * (MAX_QUERY_CHARS + 1), "x" * 100_000])
async def test_an_empty_or_too_long_query_is_refused_shortly(redis_url, query):
    async with looking(redis_url, Echo()) as lookup:
        with pytest.raises(InputError, match="wanted a query") as caught:
            await lookup.get(query)
        assert len(str(caught.value)) < 120


async def test_the_longest_query_is_answered(client, redis_url):
    longest = "x" * MAX_QUERY_CHARS
    publish_queries(client, 1, longest)
    async with looking(redis_url) as lookup:
        assert (await lookup.get(longest)).source == "cache"


async def test_a_slow_student_is_not_waited_for_past_the_deadline(client, redis_url):
    publish_queries(client, 1, "milk")
    async with looking(redis_url, Echo(seconds=30), deadline=1.0) as lookup:
        started = time.perf_counter()
        answers = await lookup.get_many(["rye", "milk", "oats"])
        assert 0.9 < time.perf_counter() - started < 2
    assert [answer.source for answer in answers] == ["none", "cache", "none"]
    assert "within 1000 ms" in answers[0].reason
    assert answers[0].value is None


async def test_concurrent_callers_of_one_miss_share_one_ask(client, redis_url):
    publish_queries(client, 1, "milk")
    student = Echo(seconds=1.0)
    async with looking(redis_url, student) as lookup:
        answers = await asyncio.gather(*(lookup.get("rye") for _ in range(200)))
        assert {answer.source for answer in answers} == {"student"}
        assert student.asked == ["rye"]
        await lookup.get("rye")
        assert student.asked == ["rye", "rye"]  # what has landed is no flight any more


async def test_more_callers_at_once_than_connections_are_all_served(client, redis_url):
    publish_queries(client, 1, "milk")
    async with looking(redis_url) as lookup:
        answers = await asyncio.gather(*(lookup.get("milk") for _ in range(20 * CONNECTIONS)))
        assert len(client.client_list()) <= CONNECTIONS + 5
    assert {answer.source for answer in answers} == {"cache"}


async def test_a_caller_that_leaves_does_not_take_the_answer_from_the_others(client, redis_url):
    publish_queries(client, 1, "milk")
    student = Echo(seconds=0.5)
    async with looking(redis_url, student) as lookup:
        first = asyncio.create_task(lookup.get("rye"))
        while not student.asked:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(lookup.get("rye"))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await second).source == "student"
        with pytest.raises(asyncio.CancelledError):
            await first
    assert student.asked == ["rye"]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (value("rye", brand="verdant machine"), "rejected, grounded: brand 'verdant machine'"),
        ("I think it is rye.", "breaks the schema"),
        ('{"product":"rye"}', "breaks the schema: brand"),
        ("", "breaks the schema"),
        ("[" * 100_000, "breaks the schema"),
    ],
)
async def test_a_students_answer_passes_the_guardrails_or_is_none(client, redis_url, raw, says):
    publish_queries(client, 1, "milk")
    async with looking(redis_url, Says(raw)) as lookup:
        answer = await lookup.get("rye")
    assert (answer.source, answer.value) == ("none", None)
    assert says in answer.reason


async def test_with_the_student_down_a_miss_is_none_and_says_so(client, redis_url):
    publish_queries(client, 1, "milk")
    async with looking(redis_url, Broken()) as lookup:
        miss, hit = await lookup.get("rye"), await lookup.get("milk")
    assert miss.source == "none"
    assert miss.reason == "the student can't answer: vLLM at http://127.0.0.1:1 refused the connection"
    assert hit.source == "cache"


async def test_without_a_student_a_miss_is_none_and_says_so(client, redis_url):
    publish_queries(client, 1, "milk")
    async with looking(redis_url) as lookup:
        assert (await lookup.get("rye")).reason == "not in the cache; no student is served"


async def test_with_redis_down_the_student_answers(nowhere):
    async with looking(nowhere, Echo()) as lookup:
        answer = await lookup.get("rye")
        assert (answer.source, answer.release) == ("student", None)
        assert (await lookup.current())[1].startswith("Redis can't be reached")


@pytest.mark.parametrize("student", [Broken(), None])
async def test_with_both_down_the_answer_is_none_at_once(nowhere, student):
    async with looking(nowhere, student) as lookup:
        answer = await lookup.get("rye")
    assert answer.source == "none"
    assert answer.reason
    assert answer.milliseconds < 100


async def test_redis_killed_and_back_goes_to_the_student_and_back_to_the_cache(tmp_path):
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        publish_queries(client, 1, "milk")
        async with looking(url, Echo()) as lookup:
            assert (await lookup.get("milk")).source == "cache"
            os.kill(json.loads((tmp_path / "service.json").read_text())["pid"], signal.SIGKILL)
            down = await lookup.get("milk")
            assert (down.source, down.release) == ("student", "r1")
            with local_redis(tmp_path) as again:
                assert again == url
                assert (await lookup.get("milk")).source == "cache"


async def test_a_frozen_redis_leaves_the_student_time_and_crosses_no_answers(tmp_path):
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        publish_queries(client, 1, *(f"query {number}" for number in range(50)))
        pid = json.loads((tmp_path / "service.json").read_text())["pid"]
        async with looking(url, Echo(), deadline=3.0) as lookup:
            await lookup.get("query 1")
            os.kill(pid, signal.SIGSTOP)
            try:
                frozen = await asyncio.gather(*(lookup.get(f"query {number % 50}") for number in range(300)))
            finally:
                os.kill(pid, signal.SIGCONT)
            assert {answer.source for answer in frozen} == {"student"}
            assert max(answer.milliseconds for answer in frozen) < 3000
            thawed = await asyncio.gather(*(lookup.get(f"query {number}") for number in range(50)))
    assert [answer.value["product"] for answer in thawed] == [f"query {number}" for number in range(50)]
    assert {answer.source for answer in thawed} == {"cache"}


async def test_before_the_first_release_every_answer_is_none(client, redis_url):
    async with looking(redis_url, Echo()) as lookup:
        answer = await lookup.get("milk")
        assert (answer.source, answer.reason) == ("none", "no release is published yet; run `stillhouse night`")
        publish_queries(client, 1, "milk")
        assert (await lookup.get("milk")).source == "cache"


async def test_a_new_release_and_a_rollback_are_seen_at_the_next_question(client, redis_url):
    publish_queries(client, 1, "milk", brand="one")
    async with looking(redis_url) as lookup:
        assert (await lookup.get("milk")).value["brand"] == "one"
        publish_queries(client, 2, "milk", brand="two")
        assert (await lookup.get("milk")).value["brand"] == "two"
        rollback(client)
        answer = await lookup.get("milk")
        assert (answer.value["brand"], answer.release) == ("one", "r1")


async def test_no_answer_mixes_two_releases_while_they_are_switched(client, redis_url):
    queries = [f"query {number}" for number in range(300)]
    publish_queries(client, 0, *queries, brand="b0")
    done = threading.Event()

    def switch():
        with closing(connect(redis_url)) as publisher:
            for number in range(1, 11):
                publish(publisher, rows(*queries, brand=f"b{number}"), release(number, len(queries)))
                if number % 3 == 0:
                    rollback(publisher)
        done.set()

    seen = set()
    async with looking(redis_url) as lookup:
        switching = threading.Thread(target=switch)
        switching.start()
        while not done.is_set():
            for answers in await asyncio.gather(*(lookup.get_many(queries[at : at + 20]) for at in range(0, 200, 20))):
                for answer in answers:
                    assert answer.source == "cache"
                    assert answer.value["brand"] == f"b{answer.release[1:]}"
                assert len({answer.release for answer in answers}) == 1
                seen.add(answers[0].release)
        switching.join()
    assert len(seen) > 3


async def test_a_release_with_another_student_is_served_from_its_cache_alone(client, redis_url):
    publish_queries(client, 1, "milk")
    student = Echo()
    async with looking(redis_url, student) as lookup:
        await lookup.get("milk")
        publish_queries(client, 2, "milk", student="s2")
        assert (await lookup.get("milk")).release == "r2"
        miss = await lookup.get("rye")
    assert miss.source == "none"
    assert miss.reason.startswith("release r2 goes with student s2, but s1 is served; restart the server")
    assert student.asked == []


@pytest.mark.parametrize(
    "poison",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b'"text"',
        b"[" * 100_000,
        b'{"value":{"product":"x"},"confidence":1,"author":"teacher"}',
        b'{"value":{"product":1,"brand":"","attributes":[]},"confidence":1,"author":"teacher"}',
        b'{"value":{"product":"\\ud800","brand":"","attributes":[]},"confidence":1,"author":"teacher"}',
    ],
)
async def test_a_broken_entry_is_never_answered(client, redis_url, poison):
    publish_queries(client, 1, "milk")
    client.set(query_key("g1", "milk"), poison)
    async with looking(redis_url, Echo()) as lookup:
        answer = await lookup.get("milk")
    assert (answer.source, answer.value["product"]) == ("student", "milk")


@pytest.mark.parametrize("poison", [b"\xff", b"{}", b"[]", b'{"release":"r9"}'])
async def test_a_broken_release_is_none_and_says_so(client, redis_url, poison):
    client.set(RELEASE, poison)
    async with looking(redis_url, Echo()) as lookup:
        answer = await lookup.get("milk")
        assert (await lookup.current())[0] is None
    assert answer.source == "none"
    assert answer.reason.startswith("Redis holds no readable release")


async def test_closing_with_a_question_under_way_ends_it(client, redis_url):
    publish_queries(client, 1, "milk")
    async with looking(redis_url, Echo(seconds=30), deadline=30.0) as lookup:
        waiting = asyncio.create_task(lookup.get("rye"))
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await waiting


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.text(st.characters(), min_size=1, max_size=40).filter(lambda text: 0 < len(normalise(text)) <= 200),
        min_size=1,
        max_size=8,
    )
)
def test_any_text_published_in_normal_form_is_found_as_it_was_typed(redis_url, texts):
    queries = list(dict.fromkeys(map(normalise, texts)))
    with closing(connect(redis_url)) as client:
        client.flushall()
        publish_queries(client, 1, *queries)

    async def ask():
        async with looking(redis_url) as lookup:
            for text in texts:
                typed = [text, f"\t {text}\n", unicodedata.normalize("NFD", text)]
                for answer in await lookup.get_many(typed):
                    assert (answer.query, answer.source) == (normalise(text), "cache")

    asyncio.run(ask())


def test_a_lookup_is_made_without_connecting():
    assert Lookup(connect_async("redis://192.0.2.1:6379"), None, SemanticRoles).deadline == 0.3
