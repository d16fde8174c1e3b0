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

from cache.canonical import alias, canonical
from cache.client import connect, connect_async
from cache.layout import CHANGED, MISSES, RELEASE, bucket_key, bucket_of, entry, pack, seal, tail_key
from cache.lookup import Lookup
from cache.people import say_people, withdraw_people
from cache.publish import publish
from cache.release import rollback
from cache.server import local_redis
from labels.errors import InputError
from labels.normalise import MAX_QUERY_CHARS, normalise
from labels.semantic_roles import SemanticRoles
from labels.services import free_port
from tests.cache.shop import Broken, Echo, Says, looking, publish_queries, release, rows, value
from tests.cache.students import Student, looking_with, seen

JOURNAL = {f"cmdstat_{name}" for name in ("hset", "expire", "xadd", "pfadd")}  # written once a second
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


async def test_what_was_answered_is_known_as_it_was_typed(client, redis_url):
    publish_queries(client, 1, "milk", brand="acme")
    async with looking(redis_url) as lookup:
        assert lookup.known("MILK") is None
        first = await lookup.get("MILK")
        known = lookup.known("MILK")
        assert (known.query, known.value, known.source, known.release) == ("milk", first.value, "cache", "r1")
        assert lookup.known("milk") is None
        assert lookup.journal.counts.answers("cache") == 2


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


async def test_a_question_costs_one_command_at_most(client, redis_url):
    publish_queries(client, 1, "milk", "tea")
    async with looking_with(redis_url) as lookup:
        await lookup.get("rye")
        client.config_resetstat()
        await lookup.get("milk")
        await lookup.get_many(["milk", "tea", "oats"])
        await lookup.get("milk")
        await lookup.get_many(["milk", "tea"])
        calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
    assert calls["cmdstat_mget"] == 2
    assert set(calls) <= {"cmdstat_mget", "cmdstat_get", "cmdstat_hgetall", "cmdstat_config|resetstat"} | JOURNAL
    assert calls.get("cmdstat_get", 0) < 10  # the watch, once a second


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
    assert answers[0].reason == "the student gave no answer in the 1000 ms there are for all"
    assert answers[0].value is None


async def test_ten_thousand_callers_of_one_miss_share_one_ask_and_one_read(client, redis_url):
    publish_queries(client, 1, "milk")
    student = Student()
    student.gate.clear()
    async with looking_with(redis_url, student, deadline=60.0, process_entries=0, tail_seconds=0) as lookup:
        await seen(lookup, "r1")
        client.config_resetstat()
        waiting = [asyncio.create_task(lookup.get("rye")) for _ in range(10_000)]
        while not student.asked:
            await asyncio.sleep(0.01)
        student.gate.set()
        assert {answer.source for answer in await asyncio.gather(*waiting)} == {"student"}
        assert student.asked == ["rye"]
        assert client.info("commandstats")["cmdstat_mget"]["calls"] == 1
        assert (await lookup.get("rye")).source == "student"
        assert student.asked == ["rye", "rye"]  # kept nowhere, it is asked anew
        assert lookup.journal.counts.misses == 10_001


async def test_more_misses_than_may_wait_are_none_at_once(client, redis_url):
    publish_queries(client, 1, "milk")
    student = Student(seconds=0.2)
    async with looking_with(redis_url, student, in_flight=2, queue=3) as lookup:
        answers = await asyncio.gather(*(lookup.get(f"query {number}") for number in range(10)))
        assert [answer.source for answer in answers] == ["student"] * 5 + ["none"] * 5
        assert answers[9].reason == "the student is busy: 5 questions are under way or waiting already"
        assert lookup.journal.counts.refused["queue full"] == 5
        assert (await lookup.get("query 9")).source == "student"


async def test_a_batch_leaves_others_half_of_the_queue(client, redis_url):
    publish_queries(client, 1, "milk")
    async with looking_with(redis_url, Student(seconds=0.2), in_flight=4, queue=4) as lookup:
        await seen(lookup, "r1")
        batch = asyncio.create_task(lookup.get_many([f"query {number}" for number in range(10)]))
        await asyncio.sleep(0.1)
        assert (await lookup.get("rye")).source == "student"
        answers = await batch
        assert [answer.source for answer in answers] == ["student"] * 4 + ["none"] * 6
        assert answers[9].reason.startswith("more than 4 queries of this batch are new")
        assert lookup.journal.counts.refused["queue full"] == 6


async def test_a_students_answer_is_kept_in_the_process_and_in_redis_and_says_so(client, redis_url):
    publish_queries(client, 1, "milk")
    student = Student()
    async with looking_with(redis_url, student) as lookup:
        assert (await lookup.get("rye")).source == "student"
        again = await lookup.get("rye")
        assert (again.source, again.value["product"]) == ("tail-cache", "rye")
        assert again.age in {0, 1}  # whole seconds: another may have begun in between
        key = tail_key("g1", bucket_of("rye", 1), "rye")
        while not client.exists(key):  # written behind the answer
            await asyncio.sleep(0.01)
        assert 86_000 < client.ttl(key) <= 86_400
    async with looking_with(redis_url, student) as lookup:  # another process
        other = await lookup.get("rye")
    assert (other.source, other.value, other.confidence) == ("tail-cache", again.value, 0.5)
    assert student.asked == ["rye"]


async def test_the_tails_answers_end_with_their_time(client, redis_url):
    publish_queries(client, 1, "milk")
    student = Student()
    async with looking_with(redis_url, student, tail_seconds=2) as lookup:
        assert [(await lookup.get("rye")).source for _ in range(2)] == ["student", "tail-cache"]
        await asyncio.sleep(2.2)
        assert (await lookup.get("rye")).source == "student"


async def test_what_one_student_said_is_not_anothers_answer(client, redis_url):
    """Two releases may share a generation."""
    publish_queries(client, 1, "milk")
    first, second = Student("s1", brand="rye"), Student("s2")
    async with looking_with(redis_url, first, second) as lookup:
        await lookup.get("rye")
        while not client.exists(tail_key("g1", 0, "rye")):
            await asyncio.sleep(0.01)
        publish(client, rows("milk"), release(2, 1, "s2", generation="g1"))
        await seen(lookup, "r2")
        answer = await lookup.get("rye")
    assert (answer.source, answer.release, answer.value["brand"]) == ("student", "r2", "")


@pytest.mark.parametrize("poison", [b"", b"junk", seal(b"s1"), seal(b"s1\nnot json"), seal(b's1\n[1,"",[],0.5,3,1]')])
async def test_a_broken_answer_of_the_tail_is_refused_counted_and_asked_anew(client, redis_url, poison):
    publish_queries(client, 1, "milk")
    client.set(tail_key("g1", 0, "rye"), poison)
    async with looking(redis_url, Echo()) as lookup:
        assert (await lookup.get("rye")).source == "student"
        assert lookup.journal.counts.refused["corrupted"] == 1


async def test_thousands_of_callers_at_once_share_a_connection_and_each_gets_his_own(client, redis_url):
    queries = [f"query {number}" for number in range(2_000)]
    publish_queries(client, 1, *queries)
    async with looking_with(redis_url, process_entries=0, deadline=60.0) as lookup:
        await seen(lookup, "r1")
        answers = await asyncio.gather(*(lookup.get(query) for query in queries))
        assert len(client.client_list()) < 10
    assert [answer.value["product"] for answer in answers] == queries
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
        (json.dumps(value("rye", brand="verdant machine")), "rejected, grounded: brand 'verdant machine'"),
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


async def test_an_answer_that_was_turned_down_is_not_asked_for_again_at_once(client, redis_url):
    publish_queries(client, 1, "milk")
    student = Student(brand="verdant machine")
    async with looking_with(redis_url, student) as lookup:
        answers = [await lookup.get("rye") for _ in range(3)] + await lookup.get_many(["rye", "rye bread"])
    assert all("rejected, grounded: brand" in answer.reason for answer in answers)
    assert student.asked == ["rye", "rye bread"]
    assert lookup.journal.counts.refused == {"student's answer": 2}
    assert lookup.journal.counts.misses == 5


async def test_a_student_that_keeps_failing_is_left_alone_for_a_moment(client, redis_url):
    publish_queries(client, 1, "milk")
    student = Student()
    student.down = True
    async with looking_with(redis_url, student) as lookup:
        for number in range(5):
            assert "refused the connection" in (await lookup.get(f"rye {number}")).reason
        left = await lookup.get("oats")
        assert left.reason == "the student failed several times in a row; it is tried again in a moment"
        assert (lookup.breaker.state, len(student.asked)) == ("open", 5)
        student.down = False
        async with asyncio.timeout(10):
            while (await lookup.get("oats")).source != "student":
                await asyncio.sleep(0.05)
        assert lookup.breaker.state == "closed"


async def test_a_student_too_slow_for_the_deadline_is_left_alone_too(client, redis_url):
    publish_queries(client, 1, "milk")
    async with looking_with(redis_url, Student(seconds=30), deadline=0.2) as lookup:
        await lookup.get_many([f"rye {number}" for number in range(5)])
        assert "tried again in a moment" in (await lookup.get("oats")).reason


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
        release, reason = await lookup.current()
        assert release is None
        assert reason.startswith("Redis can't be reached")


@pytest.mark.parametrize("student", [Broken(), None])
async def test_with_both_down_the_answer_is_none_at_once(nowhere, student):
    async with looking(nowhere, student) as lookup:
        answer = await lookup.get("rye")
    assert answer.source == "none"
    redis, student_too = answer.reason.split("; ")
    assert redis.startswith("Redis can't be reached")
    assert "student" in student_too
    assert answer.milliseconds < 100


async def test_redis_killed_and_back_goes_to_the_student_and_back_to_the_cache(tmp_path):
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        publish_queries(client, 1, "milk")
        async with looking_with(url, Student(), process_entries=0) as lookup:
            assert (await lookup.get("milk")).source == "cache"
            os.kill(json.loads((tmp_path / "service.json").read_text())["pid"], signal.SIGKILL)
            down = await lookup.get("milk")
            assert (down.source, down.release) == ("student", "r1")
            misses = lookup.journal.counts.misses
            assert (await lookup.get("milk")).source == "student"
            assert lookup.journal.counts.misses == misses  # nobody knows whether the head has it
            with local_redis(tmp_path) as again:
                assert again == url
                await seen(lookup, "r1")
                assert (await lookup.get("milk")).source == "cache"


async def test_with_redis_away_what_the_process_holds_is_still_answered(tmp_path):
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        publish_queries(client, 1, "milk", "tea")
        say_people(client, {"tea": entry(value("tea", "acme"), 1.0, "person", 1_700_000_000)})
        async with looking_with(url) as lookup:
            await lookup.get("milk")
            os.kill(json.loads((tmp_path / "service.json").read_text())["pid"], signal.SIGKILL)
            answers = await lookup.get_many(["milk", "tea", "rye"])
    assert [answer.source for answer in answers] == ["cache", "cache", "none"]
    assert {answer.release for answer in answers} == {"r1"}
    assert answers[2].reason.startswith("Redis can't be reached")
    assert answers[2].reason.endswith("no student is served")


async def test_a_frozen_redis_leaves_the_student_time_is_not_waited_for_twice_and_crosses_no_answers(tmp_path):
    queries = [f"query {number}" for number in range(300)]
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        publish_queries(client, 1, *queries)
        pid = json.loads((tmp_path / "service.json").read_text())["pid"]
        async with looking_with(
            url, Student(), deadline=3.0, in_flight=300, process_entries=0, tail_seconds=0
        ) as lookup:
            await lookup.get("query 1")
            os.kill(pid, signal.SIGSTOP)
            try:
                frozen = await asyncio.gather(*map(lookup.get, queries))
                known = await asyncio.gather(*map(lookup.get, queries))
            finally:
                os.kill(pid, signal.SIGCONT)
            assert {answer.source for answer in frozen + known} == {"student"}
            assert max(answer.milliseconds for answer in frozen) < 3000
            assert max(answer.milliseconds for answer in known) < 900  # Redis's share alone is 1,000
            await seen(lookup, "r1")
            thawed = await asyncio.gather(*map(lookup.get, queries))
    assert [answer.value["product"] for answer in thawed] == queries
    assert {answer.source for answer in thawed} == {"cache"}


async def test_before_the_first_release_every_answer_is_none(client, redis_url):
    async with looking(redis_url, Echo()) as lookup:
        answer = await lookup.get("milk")
        assert (answer.source, answer.reason) == ("none", "no release is published yet; run `stillhouse night`")
        assert await lookup.current() == (None, answer.reason)
        publish_queries(client, 1, "milk")
        await seen(lookup, "r1")
        assert (await lookup.get("milk")).source == "cache"


@pytest.mark.parametrize("lost", [b"", b"{}"])
async def test_with_the_pointer_lost_or_broken_the_release_last_known_is_served_and_says_so(client, redis_url, lost):
    publish_queries(client, 1, "milk")
    async with looking_with(redis_url, Student(), process_entries=0) as lookup:
        assert (await lookup.get("milk")).source == "cache"
        pointer = client.get(RELEASE)
        if lost:
            client.set(RELEASE, lost)
        else:
            client.delete(RELEASE)
        client.publish(CHANGED, RELEASE)
        async with asyncio.timeout(10):
            while not (told := await lookup.current())[1]:
                await asyncio.sleep(0.01)
        assert told[0].release == "r1"
        assert "no readable release" in told[1] or "lost its release" in told[1]
        answers = await lookup.get_many(["milk", "rye"])
        assert [(answer.source, answer.release) for answer in answers] == [("cache", "r1"), ("student", "r1")]
        client.set(RELEASE, pointer)
        client.publish(CHANGED, RELEASE)
        await seen(lookup, "r1")


async def test_what_a_student_says_of_the_head_while_redis_is_away_does_not_outlive_that(tmp_path):
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        publish_queries(client, 1, "milk", "tea")
        async with looking_with(url, Student()) as lookup:
            await lookup.current()
            os.kill(json.loads((tmp_path / "service.json").read_text())["pid"], signal.SIGKILL)
            assert [one.source for one in await lookup.get_many(["milk", "tea"])] == ["student", "student"]
            with local_redis(tmp_path):
                await seen(lookup, "r1")
                async with asyncio.timeout(10):
                    while {one.source for one in await lookup.get_many(["milk", "tea"])} != {"cache"}:
                        await asyncio.sleep(0.05)


async def test_nothing_that_is_personal_is_written_to_redis(client, redis_url):
    publish_queries(client, 1, "milk")
    private = "jo@example.com rye"
    masked = {private: "(email) rye"}
    async with looking_with(redis_url, Student(), mask=lambda query: masked.get(query, query)) as lookup:
        assert (await lookup.get(private)).source == "student"
        assert (await lookup.get("rye")).source == "student"
        async with asyncio.timeout(10):
            while not client.keys("*:rye"):
                await asyncio.sleep(0.01)
    keys = b"\n".join(client.keys("*"))
    assert b":rye" in keys
    assert b"jo@" not in keys
    assert {entry[b"q"] for _, entry in client.xrange(MISSES)} == {b"(email) rye", b"rye"}


async def test_of_a_generation_half_there_the_rest_is_answered_by_the_student(client, redis_url):
    queries = [f"query {number}" for number in range(200)]
    made = publish_queries(client, 1, *queries)
    for bucket in range(0, made.buckets, 2):
        client.delete(bucket_key("g1", bucket))
    async with looking(redis_url, Echo()) as lookup:
        answers = await lookup.get_many(queries)
    expected = ["cache" if bucket_of(query, made.buckets) % 2 else "student" for query in queries]
    assert [answer.source for answer in answers] == expected
    assert [answer.value["product"] for answer in answers] == queries


async def test_a_new_release_and_a_rollback_are_seen_within_moments(client, redis_url):
    publish_queries(client, 1, "milk", brand="one")
    async with looking(redis_url) as lookup:
        assert (await lookup.get("milk")).value["brand"] == "one"
        publish_queries(client, 2, "milk", brand="two")
        await seen(lookup, "r2")
        assert (await lookup.get("milk")).value["brand"] == "two"
        rollback(client)
        await seen(lookup, "r1")
        answer = await lookup.get("milk")
        assert (answer.value["brand"], answer.release) == ("one", "r1")


async def test_what_people_say_outranks_the_head_and_the_student_at_once_and_may_be_withdrawn(client, redis_url):
    publish_queries(client, 1, "milk", "tea")

    async def brands(expected):
        async with asyncio.timeout(10):
            while [a.value["brand"] for a in await lookup.get_many(["Milk", "milk", "tea", "rye"])] != expected:
                await asyncio.sleep(0.01)

    async with looking_with(redis_url, Student()) as lookup:
        await brands(["", "", "", ""])
        said = {query: entry(value(query, "acme"), 1.0, "person", 1_700_000_000) for query in ("milk", "rye")}
        say_people(client, said)
        await brands(["acme", "acme", "", "acme"])
        answer = await lookup.get("milk")
        assert (answer.source, answer.confidence, answer.release) == ("cache", 1.0, "r1")
        assert answer.age > 30_000_000
        publish_queries(client, 2, "milk", "tea")
        await seen(lookup, "r2")
        await brands(["acme", "acme", "", "acme"])
        withdraw_people(client, ["milk"])
        await brands(["", "", "", "acme"])


async def test_ages_are_of_the_answer(client, redis_url):
    publish(client, rows("milk"), release(1, 1, created="2026-01-01T00:00:00+00:00"))
    async with looking(redis_url) as lookup:
        ages = [(await lookup.get("milk")).age for _ in range(2)]
    since = time.time() - 1_767_225_600
    assert all(abs(age - since) < 60 for age in ages)


async def test_no_answer_mixes_two_releases_while_they_are_switched_under_load(client, redis_url):
    """Every release says its own brand, in its head by its entries and in its tail by its student."""
    queries = [f"query {number}" for number in range(60)]
    students = [Student(f"s{number}", brand=f"b{number}") for number in range(11)]
    done, seen_releases = threading.Event(), set()

    def switch():
        with closing(connect(redis_url)) as publisher:
            for number in range(1, 11):
                made = release(number, len(queries), f"s{number}")
                publish(publisher, rows(*queries, brand=f"b{number}"), made)
                time.sleep(0.05)
        done.set()

    async def ask(lookup, caller):
        turn = 0
        while not done.is_set():
            turn += 1
            wanted = queries[caller * 5 : caller * 5 + 15] + [f"b{n} rare {caller} {turn % 7}" for n in range(11)]
            answers = await lookup.get_many(wanted)
            assert len({answer.release for answer in answers}) == 1
            brand = f"b{answers[0].release[1:]}"
            for answer in answers[:15]:
                assert (answer.source, answer.value["brand"]) == ("cache", brand)
            for answer in answers[15:]:  # an ungrounded brand is rejected
                assert answer.source in ("student", "tail-cache", "none")
                assert answer.value is None or answer.value["brand"] == brand
            one = await lookup.get(queries[turn % 60])
            assert one.value["brand"] == f"b{one.release[1:]}"
            seen_releases.add(one.release)

    publish_queries(client, 0, *queries, brand="b0", student="s0")
    async with looking_with(redis_url, *students, in_flight=300) as lookup:
        switching = threading.Thread(target=switch)
        switching.start()
        await asyncio.gather(*(ask(lookup, caller) for caller in range(8)))
        switching.join()
    assert len(seen_releases) > 3


async def test_a_release_whose_student_is_not_served_is_answered_from_its_cache_alone(client, redis_url):
    publish_queries(client, 1, "milk")
    student = Echo()
    async with looking(redis_url, student) as lookup:
        await lookup.get("milk")
        publish_queries(client, 2, "milk", student="s2")
        await seen(lookup, "r2")
        assert (await lookup.get("milk")).release == "r2"
        miss = await lookup.get("rye")
        assert miss.source == "none"
        assert "release r2 goes with student s2, but s1 is served; restart the server" in miss.reason
        assert student.asked == []


async def test_a_student_may_be_added_and_taken_away_while_it_serves(client, redis_url):
    publish_queries(client, 1, "milk")
    students = {"s1": Student("s1")}
    async with Lookup(connect_async(redis_url), students, SemanticRoles, deadline=5.0) as lookup:
        assert (await lookup.get("rye")).source == "student"
        students["s2"] = Student("s2")
        publish_queries(client, 2, "milk", student="s2")
        await seen(lookup, "r2")
        del students["s1"]
        answer = await lookup.get("rye")
    assert (answer.source, answer.release) == ("student", "r2")
    assert students["s2"].asked == ["rye"]


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"normalisation": 99}, "release r1 is of normalisation 99, this process of normalisation 1"),
        ({"task": "categories"}, "release r1 is of task categories, this process of task semantic_roles"),
        ({"task_version": "000000000000"}, "release r1 is of task version 000000000000, this process of task version"),
    ],
)
async def test_a_release_of_another_version_or_task_is_refused(client, redis_url, facts, says):
    publish(client, rows("milk"), release(1, 1, **facts))
    async with looking(redis_url, Echo()) as lookup:
        answer = await lookup.get("milk")
        assert await lookup.current() == (None, answer.reason)
    assert (answer.source, answer.value) == ("none", None)
    assert answer.reason.startswith(says)


async def test_a_canonical_release_finds_other_word_orders_and_numbers(client, redis_url):
    form = canonical("oat milk")
    told = [*rows("oat milk", brand="acme"), (alias(form), entry(value("oat milk", "acme"), 0.9, "teacher"))]
    publish(client, told, release(1, 1, canonical=True))
    async with looking(redis_url, Echo()) as lookup:
        answers = await lookup.get_many(["oat milk", "Milk oats", "milk"])
        assert lookup.journal.counts.misses == 1
    assert [(answer.query, answer.source) for answer in answers] == [
        ("oat milk", "cache"),
        ("milk oats", "cache"),
        ("milk", "student"),
    ]
    assert answers[1].value["brand"] == "acme"


def whole(text):
    """A bucket whose checksum is right: what is wrong was written so."""
    return pack(f"milk\t{text}\n".encode())


@pytest.mark.parametrize(
    "poison",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        whole('["milk","",[],0.9,0]').replace(b"milk", b"mild"),
        whole('["milk","",[],0.9,0]')[:-9],
        whole("not json"),
        whole('"text"'),
        whole("[" * 100_000),
        whole('["milk","",[],0.9]'),
        whole('[1,"",[],0.9,0]'),
        whole('["\\ud800","",[],0.9,0]'),
        seal(b"\nmilk\t"),
        seal(b"\nmilk\t[\xff]\n"),
    ],
)
async def test_a_broken_entry_is_refused_counted_and_answered_by_the_student(client, redis_url, poison):
    publish_queries(client, 1, "milk")
    client.set(bucket_key("g1", 0), poison)
    async with looking(redis_url, Echo()) as lookup:
        answer = await lookup.get("milk")
        assert lookup.journal.counts.refused["corrupted"] == 1
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


async def test_what_the_journal_holds_is_written_at_the_end(client, redis_url):
    publish_queries(client, 1, "milk")
    async with looking(redis_url, Echo()) as lookup:
        await lookup.get_many(["milk", "rye", "rye"])
        await lookup.get("rye")
    assert lookup.journal.counts.answers("cache") == 1
    assert lookup.journal.counts.answers("student") == 2
    assert lookup.journal.counts.answers("tail-cache") == 1
    assert lookup.journal.counts.misses == 3
    assert lookup.journal.waiting == 0


@settings(max_examples=40, deadline=None)
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
    assert Lookup(connect_async("redis://192.0.2.1:6379"), {}, SemanticRoles).deadline == 0.3
