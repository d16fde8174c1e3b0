"""The misses and the days of lookups, from a journal to the night: a real Redis, and the stages as plain functions."""

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from cache.client import connect_async
from cache.journal import MISS_DAYS, Journal
from cache.layout import MISSES
from cache.publish import publish
from cache.release import current_release
from flows.ingest import ingest_log
from flows.watch import watch_lookups
from labels.errors import ServiceError
from tests.cache.shop import release, rows
from tests.flows.night_by_hand import begin, said


def night_at(folder, redis_url, **changes):
    (folder / "log.csv").write_text("query\noat milk\noat milk\ntea\n")
    named = {"log__path": str(folder / "log.csv")} | ({"cache__redis_url": redis_url} if redis_url else {})
    return begin(folder, [], **named | changes)


def flushed(journal, url):
    async def run():
        async with aclosing(connect_async(url)) as redis:
            return await journal.flush(redis)

    assert asyncio.run(run())


def miss(client, night, query, days_ago, count=1):
    moment = int((night.began - timedelta(days=days_ago)).timestamp() * 1000)
    client.xadd(MISSES, {"q": query, "n": count}, id=f"{moment}-*")


def served(url, night, days_ago, **answers):
    """A day on which so many answers came from each source."""
    day = (night.began - timedelta(days=days_ago)).date().isoformat()
    journal = Journal(today=lambda: day)
    for source, count in answers.items():
        journal.answered(source.replace("_", "-"), 1.0, count)
    flushed(journal, url)


def released(client, night, share, days_ago):
    """The release of a night so many days ago, which forecast that hit rate."""
    made = release(days_ago, 1, traffic_share=share)
    publish(client, rows("milk"), replace(made, created=(night.began - timedelta(days=days_ago)).isoformat()))
    return current_release(client)


def test_what_lookups_missed_is_tomorrows_query(client, redis_url, tmp_path):
    journal = Journal()
    for query in ("new tea", "new tea", "oat milk", "write jo@example.com"):
        journal.missed(query)
    flushed(journal, redis_url)
    night = night_at(tmp_path, redis_url)
    night = replace(night, began=night.began + timedelta(seconds=5))  # Redis's clock and ours
    counts = ingest_log(night)
    assert night.queries()["query"].to_pylist() == ["new tea", "oat milk", "tea", "write (email)"]
    assert (counts["rows"], counts["queries"]) == (3, 4)
    assert {name: count for name, count in counts.items() if name.startswith("misses")} == {
        "misses": 4, "misses_taken": 3, "misses_queries": 2, "misses_in_log": 1
    }  # fmt: skip
    assert "misses of lookups: 4; 3 as 2 queries that the log has not got, 1 in the log already" in said(night)


def test_old_misses_are_removed_and_hostile_ones_counted(client, redis_url, tmp_path):
    night = night_at(tmp_path, redis_url)
    for query, days_ago in (("older", MISS_DAYS + 1), ("old", MISS_DAYS - 1), (b"\xff", 1)):
        miss(client, night, query, days_ago)
    counts = ingest_log(night)
    assert set(night.queries()["query"].to_pylist()) == {"oat milk", "tea", "old"}
    assert counts["misses_unreadable"] == 1
    assert client.xlen(MISSES) == 2


def test_without_the_setting_or_a_redis_that_ever_ran_no_miss_is_read(client, redis_url, tmp_path):
    night = night_at(tmp_path, redis_url, log__misses=False)
    miss(client, night, "new tea", 1)
    assert "misses" not in ingest_log(night)
    own = night_at(tmp_path, None)
    assert "misses" not in ingest_log(own)
    assert not (own.work / "redis").exists()  # none was started for it


def test_a_redis_that_is_away_ends_the_night_at_its_start(tmp_path):
    night = night_at(tmp_path, "redis://127.0.0.1:1")
    with pytest.raises(ServiceError, match=r"wanted Redis at redis://127\.0\.0\.1:1.*log\.misses = false"):
        ingest_log(night)


def test_a_night_before_any_lookup_has_nothing_to_say_and_says_so(client, redis_url, tmp_path):
    night = night_at(tmp_path, redis_url)
    assert watch_lookups(night, None) == {"days": [], "warnings": [], "drift": []}
    assert "no whole day of lookups yet" in said(night)


def test_a_hit_rate_under_the_forecast_is_warned_of(client, redis_url, tmp_path):
    night = night_at(tmp_path, redis_url)
    serving = released(client, night, 0.8, days_ago=2)
    served(redis_url, night, 1, cache=700, student=250, tail_cache=40, none=10)
    served(redis_url, night, 0, cache=1)  # today is not over
    found = watch_lookups(night, serving)
    json.dumps(found)
    [day] = found["days"]
    assert (day["forecast"], day["release"]) == (0.8, serving.release)
    assert day["answers"] == {"cache": 700, "tail-cache": 40, "student": 250, "none": 10}
    assert day["latency"]["student"] == {"p50": 1.0, "p99": 1.0}
    [warning] = found["warnings"]
    for words in ("70.0% of 1,000 lookups", "67.1% to 72.8%", "80.0% that its release forecast", "newer log"):
        assert words in warning
    assert "warning: On" in said(night)


@pytest.mark.parametrize(
    ("days_ago", "hits", "made"),
    [
        pytest.param(1, 790, 2, id="within chance"),
        pytest.param(2, 600, 3, id="the day before yesterday"),
        pytest.param(1, 600, 0, id="a release made since"),
    ],
)
def test_nothing_is_warned_of_without_reason(client, redis_url, tmp_path, days_ago, hits, made):
    night = night_at(tmp_path, redis_url)
    serving = released(client, night, 0.8, days_ago=made)
    served(redis_url, night, days_ago, cache=hits, student=1000 - hits)
    assert watch_lookups(night, serving)["warnings"] == []
    assert "warning" not in said(night)


def test_a_day_is_held_against_the_release_that_served_most_of_it(client, redis_url, tmp_path):
    night = night_at(tmp_path, redis_url)
    night = replace(night, began=night.began.replace(hour=3))  # each release at three in the morning
    shares = {3: 0.5, 2: 0.6, 1: 0.7}
    for days_ago, share in shares.items():
        serving = released(client, night, share, days_ago)
        served(redis_url, night, days_ago, cache=9, student=1)
    served(redis_url, night, 4, cache=9)
    assert [day["forecast"] for day in watch_lookups(night, serving)["days"]] == [None, 0.5, 0.6, 0.7]
    earlier = replace(serving, release="r2", created=(night.began - timedelta(days=2)).isoformat())
    assert [day["forecast"] for day in watch_lookups(night, earlier)["days"]] == [None, 0.5, 0.6, 0.6]


def test_drift_is_said_with_its_figures(client, redis_url, tmp_path):
    night = night_at(tmp_path, redis_url)
    for days_ago in range(8, 1, -1):
        served(redis_url, night, days_ago, cache=800, student=190, none=10)
    served(redis_url, night, 1, cache=800, student=120, none=80)
    found = watch_lookups(night, None)
    told = {one["name"]: one for one in found["drift"]}
    assert told["none_share"]["drifted"]
    assert "40.0% on" in told["none_share"]["message"]
    assert "5.0% on average in the 7 days before" in told["none_share"]["message"]
    assert not told["hit_rate"]["drifted"]
    assert said(night).count("warning:") == 1
