"""A verdict by day: it is in the cache when the page says saved, and where Redis is away it is saved all the same."""

import json
import os
import re
import signal
import time
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial

import pytest
from starlette.testclient import TestClient

from cache.client import connect
from cache.layout import PEOPLE, RELEASE, parse_entry
from cache.people import say_people
from cache.server import local_redis
from evals.item import Item
from evals.queue import ReviewQueue
from flows.corrections import Corrections, resync, running_redis
from flows.people import answer_to, answers_of
from flows.publish import publish_release
from flows.review import sample_labels
from flows.reviewing import export, links, review_app, take_in
from labels.files import read_json
from labels.services import free_port
from tests.flows import night_by_hand
from tests.flows.night_by_hand import head_of, label, roles, verdict


@pytest.fixture
def begin(tmp_path):
    return partial(night_by_hand.begin, tmp_path, review__active=0)


@pytest.fixture
def night(begin):
    """A night whose Redis, the profile's own, runs for as long as the test."""
    night = begin([label(number) for number in range(6)])
    with local_redis(night.work / "redis"):
        yield night


def held(night):
    """What the cache holds of people's answers: the products, by query."""
    with closing(connect(running_redis(night.settings))) as client:
        found = {query.decode(): raw for query, raw in client.hgetall(PEOPLE).items()}
    return {query: parse_entry(raw, tuple(night.task.model_fields)).value["product"] for query, raw in found.items()}


def queue_of(night, told, *labels, overlap=False):
    queue = ReviewQueue(night.warehouse.said, on_change=Corrections(night, told.append))
    queue.fill([Item(one, "audit", "tail", 1.0, overlap=overlap) for one in labels or night.labels], "n1")
    return queue


def say(queue, reviewer, decision, value):
    [given] = queue.take(reviewer, 1)
    return queue.submit(reviewer, given.lease, decision, value).query


def test_a_verdict_is_in_the_cache_when_the_queue_has_saved_it_and_an_undo_takes_it_out(night):
    told = []
    queue = queue_of(night, told)
    first, second = say(queue, "ann", "corrected", roles("tea")), say(queue, "ann", "right", roles("milk"))
    assert held(night) == {first: "tea", second: "milk"}
    say(queue, "ann", "cant_tell", None)
    assert held(night) == {first: "tea", second: "milk"}
    for left in ({first: "tea", second: "milk"}, {first: "tea"}, {}):
        queue.undo("ann")
        assert held(night) == left
    assert told == []


def test_of_reviewers_who_differ_the_cache_says_what_a_publish_would(night):
    queue = queue_of(night, [], night.labels[0], overlap=True)
    for reviewer, product in (("ann", "tea"), ("bo", "rice"), ("cy", "tea")):
        query = say(queue, reviewer, "corrected", roles(product))
        [answer] = answers_of(night)
        assert held(night) == {query: night.task.parse(answer.value).product}
    assert held(night) == {query: "tea"}, "two of three"
    queue.undo("cy")
    assert held(night) == {query: "rice"}, "of equally many the latest"


def test_what_answers_a_few_queries_is_what_all_verdicts_together_say_of_them(begin):
    said = [
        verdict(n % 5, "corrected", roles(f"p{n}"), reviewer=f"r{n % 3}", query=f"query {n % 4}") for n in range(30)
    ]
    said += [verdict(9, "corrected", roles("x"), query="query 1", task_version="older")]
    night = begin([label(1)], [*said, verdict(8, "cant_tell", query="query 3", reviewer="r9")])
    everything = {one.query: one for one in answers_of(night)}
    assert len(everything) == 4
    assert all(answer_to(night, [query]) == [one] for query, one in everything.items())
    assert answer_to(night, ["nobody asked"]) == []


def test_the_page_says_saved_when_the_cache_knows_and_knows_at_its_start_what_was_said_without_redis(begin):
    night = begin([label(number) for number in range(6)], review__sample=6, review__overlap=0)
    night.warehouse.add_verdicts([verdict("old", "corrected", roles("rice"), query="said before")])
    sample_labels(night)
    with local_redis(night.work / "redis"):
        with TestClient(review_app(night.settings), base_url="http://127.0.0.1:8018") as page:
            assert held(night) == {"said before": "rice"}
            page.get("/sign-in?" + links(night.settings)[0]["link"].partition("?")[2])
            shown = page.get("/").text
            data = {
                "csrf": re.search(r'name="csrf" value="([^"]+)"', shown)[1],
                "lease": re.search(r'data-lease="(\w+)"', shown)[1],
                "decision": "right",
                "value.product": "milk",
            }
            said = page.post("/verdict", data=data, headers={"accept": "application/json"})
        assert said.json()["message"] == "Saved: right."
        [query] = held(night).keys() - {"said before"}
        assert held(night)[query] == "milk"


def test_verdicts_from_another_tool_are_in_the_cache_too(begin, tmp_path):
    night = begin([label(number) for number in range(6)], review__sample=6)
    sample_labels(night)
    export(night.settings, tmp_path / "asked.jsonl", "jsonl")
    row = json.loads((tmp_path / "asked.jsonl").read_text().splitlines()[0])
    query = row["label"]["query"]
    said = verdict("", "corrected", roles("tea"), identity=row["label"]["identity"], query=query)
    (tmp_path / "said.jsonl").write_text(json.dumps(row | {"verdicts": [asdict(said)]}) + "\n")
    with local_redis(night.work / "redis"):
        assert take_in(night.settings, tmp_path / "said.jsonl") == (1, [])
        assert held(night) == {query: "tea"}


def test_without_redis_the_verdict_is_saved_the_reviewer_told_once_and_the_cache_follows(begin):
    night, told = begin([label(number) for number in range(6)]), []
    queue = queue_of(night, told)
    said = [say(queue, "ann", "corrected", roles("tea")) for _ in range(2)]
    assert len(answers_of(night)) == 2
    assert len(told) == 1
    assert "no Redis runs now: what people say is saved" in told[0]
    with local_redis(night.work / "redis"):
        said.append(say(queue, "ann", "corrected", roles("tea")))
        assert held(night) == dict.fromkeys(said, "tea"), "what was missed follows with the next"


def test_a_redis_that_refuses_the_connection_fails_no_verdict(begin):
    night, told = begin([label(1)], cache__redis_url=f"redis://me:secret@127.0.0.1:{free_port()}/0"), []
    say(queue_of(night, told), "ann", "corrected", roles("tea"))
    assert len(answers_of(night)) == 1
    assert "saved but not in the cache yet: wanted Redis at redis://127.0.0.1" in told[0]
    assert "secret" not in told[0]


def test_a_redis_that_does_not_answer_holds_no_reviewer_up(night):
    queue = queue_of(night, [])
    say(queue, "ann", "corrected", roles("tea"))
    with frozen(night):
        begun = time.monotonic()
        query = say(queue, "ann", "corrected", roles("rice"))
        assert time.monotonic() - begun < 10, "it waits half a second, not for Redis's 30"
    until = time.monotonic() + 30
    while query not in held(night):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_while_another_task_is_served_what_people_say_of_the_next_waits_for_its_release(begin):
    night = begin([label(number) for number in range(3)])
    told = []
    with local_redis(night.work / "redis") as url, night.open:
        publish_release(night, head_of("query 1"), night.work / "students" / "s1")
        with closing(connect(url)) as client:
            raw = client.get(RELEASE).replace(night.task.version().encode(), b"other")
            client.set(RELEASE, raw)
        say(queue_of(night, told), "ann", "corrected", roles("tea"))
        assert held(night) == {}
    assert "with the next release" in told[0]


def test_what_was_corrected_again_or_taken_back_within_a_minute_without_redis_follows_too(night):
    told = []
    queue = queue_of(night, told)
    first, _ = say(queue, "ann", "corrected", roles("tea")), say(queue, "ann", "corrected", roles("tea"))
    with closing(connect(running_redis(night.settings))) as client:
        client.config_set("min-replicas-to-write", 1)  # it takes no more writes
        queue.undo("ann")
        queue.undo("ann")
        assert say(queue, "ann", "corrected", roles("rice")) == first
        assert len(held(night)) == 2
        client.config_set("min-replicas-to-write", 0)
    last = say(queue, "ann", "corrected", roles("milk"))
    assert held(night) == {first: "rice", last: "milk"}
    assert "saved but not in the cache yet" in told[0]


def test_a_resync_leaves_what_people_said_and_nothing_else(night):
    night.warehouse.add_verdicts([verdict(1, "corrected", roles("tea"), created="2026-01-06T12:00:00.000000+00:00")])
    with closing(connect(running_redis(night.settings))) as client:
        say_people(client, {"taken back": '["x","",[],1.0,1,1700000000]'})
        resync(night, client)
    assert held(night) == {"query 1": "tea"}


@contextmanager
def frozen(night):
    """The night's Redis, stopped."""
    pid = read_json(night.work / "redis" / "service.json")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
