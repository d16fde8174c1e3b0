"""Publishing a head on a real Redis: what is forecast, what is there then, and what people said."""

import json
import sys
from functools import partial

import httpx
import pytest

from cache.client import connect_async
from cache.diff import read_generation
from cache.layout import PEOPLE, entry, parse_entry
from cache.lookup import Lookup
from cache.memory import forecast_bytes
from cache.people import say_people
from cache.release import current_release, releases
from cache.sync import SyncLookup
from flows.head import head_json, head_of
from flows.ingest import ingest_log
from flows.publish import PUBLISHED, measure_lookup, publish_release
from flows.settings import ROOT
from labels.files import read_json
from labels.services import Launch, shared_service
from tests.flows import night_by_hand
from tests.flows.night_by_hand import label, roles, said, verdict

FIELDS = ("product", "brand", "attributes")


@pytest.fixture
def begin(client, redis_url, tmp_path):
    return partial(night_by_hand.begin, tmp_path, cache__redis_url=redis_url, cache__head_share=1.0)


def published(client, release):
    return {query: parse_entry(raw, FIELDS) for query, raw in read_generation(client, release)}


def test_what_is_published_is_what_passed_and_what_people_said_and_all_of_it_fits_the_task(begin, client):
    labels = [label(1), label(2, status="rejected"), label(3, status="failed", value=None), label(4, confidence=0.3)]
    odd = json.dumps({"product": 'tab\tand "quote"\n', "brand": "", "attributes": ["ＷＩＤＥ", ""]})
    night = begin([*labels, label(5, value=odd)], [verdict(2, "corrected", roles("tea"))])
    release = publish_release(night, head_of(night), night.work / "students" / "s1")
    found = published(client, release)
    assert {query: (one.value["product"], one.author, one.confidence) for query, one in found.items()} == {
        "query 1": ("milk", "teacher", 0.9),
        "query 2": ("tea", "person", 1.0),
        "query 4": ("milk", "teacher", 0.3),
        "query 5": ('tab and "quote"', "teacher", 0.9),
    }
    for one in found.values():
        assert night.task.model_validate(one.value, strict=True).normalised().model_dump() == one.value
    assert (release.task_version, release.entries, release.canonical) == (night.task.version(), 4, False)


def test_the_forecast_is_said_before_and_what_is_there_is_counted_after(begin, client):
    night = begin([label(number) for number in range(300)], [verdict(7, value=roles())])
    head = head_of(night)
    assert (len(head.entries), head.people, head.ended, head.bytes) == (300, 1, "labels", forecast_bytes(head.entries))
    release = publish_release(night, head, night.work / "students" / "s1")
    there = read_json(night.folder / PUBLISHED)
    assert (there["entries"], there["traffic_share"], release.traffic_share) == (300, 1.0, 1.0)
    assert there["bytes"] == pytest.approx(head.bytes, rel=0.3)
    told = said(night)
    assert told.index("300 queries (1 of them people's answers), all that has a label; forecast: 100.0%") >= 0
    assert "300 entries are there, for 100.0% of the traffic" in told[told.index("is served") :]
    assert head_json(head, there)["published"]["entries"] == 300


@pytest.mark.parametrize(
    ("limit", "ended"), [(("share", 0.5), "share"), (("entries", 20), "entries"), (("mib", 0.006), "memory")]
)
def test_each_limit_of_the_settings_ends_the_head(begin, limit, ended):
    head = head_of(begin([label(number) for number in range(300)], **{f"cache__head_{limit[0]}": limit[1]}))
    assert head.ended == ended
    assert 1 < len(head.entries) < 150


def test_the_same_again_is_what_is_served_and_writes_nothing_other_content_is_another_generation(begin, client):
    night = begin([label(1), label(2)])
    student = night.work / "students" / "s1"
    first = publish_release(night, head_of(night), student)
    again = publish_release(night, head_of(night), student)
    assert again == first == current_release(client)
    assert "is what is served already" in said(night)
    corrected = begin([label(1), label(2)], [verdict(2, "corrected", roles("tea"))], night="n2")
    other = publish_release(corrected, head_of(corrected), student)
    assert other.generation != first.generation
    assert [one.release for one in releases(client)] == [first.release, other.release]


def test_what_people_said_is_brought_in_line_at_each_publish(begin, client):
    stale = entry({"product": "old", "brand": "", "attributes": []}, 1.0, "person", 1_700_000_000)
    say_people(client, {"query 1": stale, "taken back": stale})
    created = "2026-01-06T12:00:00.500000+00:00"
    night = begin([label(1)], [verdict(1, "corrected", roles("tea"), created=created), verdict(9, "cant_tell")])
    publish_release(night, head_of(night), night.work / "students" / "s1")
    held = {query.decode(): parse_entry(raw, FIELDS) for query, raw in client.hgetall(PEOPLE).items()}
    assert {query: (one.value["product"], one.made) for query, one in held.items()} == {
        "query 1": ("tea", 1_767_700_800)
    }


def test_what_is_too_rare_to_label_is_asked_all_the_same_and_the_forecast_says_so(begin, tmp_path):
    rows = [f"query {number % 4},s{number}" for number in range(8)] + ["once,s1", "ann's secret,s2"]
    (tmp_path / "sessions.csv").write_text("\n".join(["query,who", *rows]))
    told = {"log__path": str(tmp_path / "sessions.csv"), "log__session": "who", "log__min_sessions": 2}
    night = begin([label(number) for number in range(4)], **told, log__misses=False)
    ingest_log(night)
    head = head_of(night)
    release = publish_release(night, head, night.work / "students" / "s1")
    there = read_json(night.folder / PUBLISHED)
    assert (head.traffic_share, release.traffic_share, there["traffic_share"]) == (1.0, 0.8, 0.8)
    assert "forecast: 80.0% of the traffic" in said(night)
    assert "20.0% of the traffic is queries too rare or too personal to be labelled" in said(night)


VARIANTS = [("oat milk", "milk oat"), ("red shoes", "red shoe"), ("green teas", "tea green")]


def variants(wrong=0):
    """Labels of queries in two forms each, which agree but for `wrong` pairs."""
    pairs = [(f"{one} {number}", f"{other} {number}") for number in range(40) for one, other in VARIANTS]
    made = []
    for number, pair in enumerate(pairs):
        for query in pair:
            product = "tea" if number < wrong and query == pair[1] else "milk"
            made.append(label(len(made), query=query, value=roles(product)))
    return made


def test_aliases_are_published_within_the_budget_and_answer_other_words_orders_and_numbers(begin, redis_url, client):
    night = begin(variants(), cache__canonical_budget=0.2)
    head = head_of(night)
    assert (head.false_hits.hits, head.false_hits.wrong, len(head.aliases)) == (240, 0, 120)
    release = publish_release(night, head, night.work / "students" / "s1")
    assert (release.canonical, release.entries) == (True, 240)
    assert read_json(night.folder / PUBLISHED)["entries"] == 240
    assert read_json(night.folder / PUBLISHED)["traffic_share"] == release.traffic_share
    assert "aliases: 0.0% of what they answer is wrong (95%: 0.0% to" in said(night)
    with SyncLookup(Lookup(connect_async(redis_url), {}, night.task, deadline=5.0)) as lookup:
        found = {query: lookup.get(query).source for query in ("oat milk 7", "7 MILKS oats", "oat tea 7")}
    assert found == {"oat milk 7": "cache", "7 MILKS oats": "cache", "oat tea 7": "none"}


def test_aliases_that_are_wrong_more_often_than_allowed_are_not_published_and_the_figures_say_why(begin):
    night = begin(variants(wrong=60), cache__canonical_budget=0.2)
    head = head_of(night)
    release = publish_release(night, head, night.work / "students" / "s1")
    assert head.false_hits.wrong == 120
    assert (release.canonical, head.aliases) == (False, [])
    assert "is allowed: none are published" in said(night)
    assert head_json(head)["false_hits"]["interval"][1] > 0.2
    assert head_of(begin(variants(wrong=60), night="n2")).false_hits is None, "by default nothing is measured"


def test_lookup_is_measured_on_gold_that_nobody_judged_and_leaves_no_trace_in_the_days_figures(begin, client):
    labels = [label(number, query=f"oat milk {number}") for number in range(30)]
    gold = {"oat milk 1": "milk", "oat milk 2": "tea", "oat milk 3": "milk", "unlabelled milk": "milk"}
    night = begin(
        [*labels, label(99, query="unlabelled milk", status="rejected")],
        [verdict(3, value=roles(), query="oat milk 3")],
        gold,
    )
    student = night.work / "students" / "s1"
    release = publish_release(night, head_of(night), student)

    def launch(port):
        command = [
            sys.executable,
            "-m",
            "tests.flows.fake_vllm",
            str(port),
            str(ROOT / "demo" / "models" / "student-base"),
        ]
        return Launch(command, f"http://127.0.0.1:{port}", {"PYTHONPATH": str(ROOT)})

    def healthy(url):
        try:
            return httpx.get(f"{url}/health").is_success
        except httpx.HTTPError:
            return False

    with night.open, shared_service(night.work / "services" / "s1", "a stand-in", launch, healthy, 30):
        measured = measure_lookup(night, release, student)
    assert measured.sources == {"cache": 2, "student": 1}
    assert measured.lookup.queries == 3
    assert not [key for key in client.scan_iter() if b"day" in key or b"misses" in key]
    assert json.loads(next((night.work / "evaluations").glob("*.json")).read_text())["oat milk 1"]["source"] == "cache"
