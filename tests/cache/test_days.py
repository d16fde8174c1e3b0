import asyncio
from contextlib import aclosing, closing
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.client import connect, connect_async
from cache.days import NEW_AFTER, day_of, read_days
from cache.journal import BOUNDS, Counts, Journal
from cache.layout import DAY
from labels.errors import ServiceError

FIRST = date(2026, 11, 1)


def day(number):
    return (FIRST + timedelta(days=number)).isoformat()


def live(url, days):
    """One process that lives through the days, each given by its missed queries."""
    present = [0]
    journal = Journal(today=lambda: day(present[0]))

    async def run():
        async with aclosing(connect_async(url)) as redis:
            for number, queries in enumerate(days):
                present[0] = number
                await journal.flush(redis)  # what ends the day before
                for query in queries:
                    journal.missed(query)
                    journal.answered("student", 50.0)
                await journal.flush(redis)

    asyncio.run(run())


def test_a_days_processes_are_put_together(client):
    one, two = Journal(), Journal()
    one.answered("cache", 0.2, 9)
    two.answered("cache", 0.2)
    two.answered("none", 700.0)
    two.refused("corrupted")
    two.missed("tea")
    client.hset(DAY + day(0), mapping={"p1": one.counts.since(Counts()), "p2": two.counts.since(Counts())})
    [found] = read_days(client, FIRST, 3)
    assert (found.day, found.total, found.answers("cache"), found.answers("student")) == (day(0), 11, 10, 0)
    assert (found.misses, found.lost, found.unreadable, found.refused) == (1, 0, 0, {"corrupted": 1})
    assert (found.quantile("cache", 0.99), found.quantile("none", 0.5)) == (0.25, 1000.0)
    assert found.quantile("student", 0.5) is None


def test_days_come_in_order_and_those_without_lookups_are_left_out(client, redis_url):
    live(redis_url, [["tea"], ["tea"], [], ["tea", "tea"]])
    assert [(one.day, one.total) for one in read_days(client, FIRST + timedelta(days=5), 10)] == [
        (day(0), 1),
        (day(1), 1),
        (day(3), 2),
    ]
    assert [one.day for one in read_days(client, FIRST + timedelta(days=3), 3)] == [day(1), day(3)]


def test_new_queries_are_those_that_the_week_before_had_not_missed(client, redis_url):
    old = [["old", f"only on {number}"] for number in range(NEW_AFTER)]
    live(redis_url, [*old, ["old", "only on 1", "new", "newer"], ["only on 0", "new"]])
    found = {one.day: (one.missed, one.new) for one in read_days(client, FIRST + timedelta(days=20), 30)}
    assert found[day(NEW_AFTER - 1)] == (2, None)  # nobody knows yet what was missed a week ago
    assert found[day(NEW_AFTER)] == (4, 2)
    assert found[day(NEW_AFTER + 1)] == (2, 1)  # "only on 0" was longer ago


@given(st.lists(st.floats(0, 6e3), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_the_bound_of_the_bucket_that_it_is_in(latencies, share):
    journal = Journal()
    for latency in latencies:
        journal.answered("cache", latency)
    found = day_of("2026-11-20", [journal.counts.since(Counts()).encode()]).quantile("cache", share)
    exact = sorted(latencies)[max(0, next(k for k in range(len(latencies) + 1) if k >= share * len(latencies)) - 1)]
    below = {high: low for low, high in pairwise((-1.0, *BOUNDS))}
    assert below[found] < exact <= found


HOSTILE = [
    b"",
    b"\xff",
    b"[]",
    b"7",
    b'{"latency": 3}',
    b'{"latency": {"cache": [1]}}',
    b'{"latency": {"cache": {"0.1": -1}}}',
    b'{"latency": {"cache": {"0.1": 1.5}}}',
    b'{"latency": {"cache": {"nan": 1}}}',
    b'{"latency": {"<script>": {"0.1": 1}}}',
    b'{"misses": "many"}',
    b'{"refused": {"x": true}}',
    b"[" * 100_000,
]


def test_totals_that_no_journal_wrote_are_counted_and_add_nothing(client):
    good = Journal()
    good.answered("cache", 1.0)
    client.hset(DAY + day(0), "p", good.counts.since(Counts()))
    for place, raw in enumerate(HOSTILE):
        client.hset(DAY + day(0), f"hostile {place}", raw)
    [found] = read_days(client, FIRST, 1)
    assert (found.total, found.misses, found.unreadable) == (1, 0, len(HOSTILE))


@given(
    st.lists(st.binary() | st.text().map(str.encode) | st.from_regex(rb'\A\{"latency":\{"cache":\{"\d":\d+\}\}\}\Z'))
)
def test_any_bytes_are_read_or_counted_as_unreadable(totals):
    found = day_of("2026-11-20", totals)
    assert 0 <= found.unreadable <= len(totals)
    assert found.total >= 0


def test_something_else_in_a_days_place_and_no_redis_are_errors(client):
    client.set(DAY + day(0), "in the way")
    with pytest.raises(ServiceError, match="wanted the counts of lookups"):
        read_days(client, FIRST, 1)
    with closing(connect("redis://127.0.0.1:1")) as nowhere, pytest.raises(ServiceError, match="wanted Redis at"):
        read_days(nowhere, FIRST, 1)
