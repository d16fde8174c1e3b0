from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.client import connect
from cache.layout import MISSES
from cache.misses import MOST_BYTES, PAGE, parse_miss, read_misses, trim_misses
from labels.errors import ServiceError

START = datetime(2026, 11, 20, tzinfo=UTC)
END = START + timedelta(days=3)


def add(client, *entries):
    """Entries of (query, count, how long after START)."""
    pipe = client.pipeline(transaction=False)
    for place, (query, count, after) in enumerate(entries):
        pipe.xadd(MISSES, {"q": query, "n": count}, id=f"{int((START + after).timestamp() * 1000)}-{place}")
    pipe.execute()


def test_a_query_has_its_misses_and_the_days_they_were_on(client):
    hours = [timedelta(hours=hour) for hour in (1, 23, 25, 60)]
    add(client, ("oat milk", 2, hours[0]), ("tea", 1, hours[0]), ("oat milk", 1, hours[1]), ("oat milk", 4, hours[3]))
    assert read_misses(client, START, END).queries == {"oat milk": (7, 2), "tea": (1, 1)}


def test_only_the_misses_of_the_time_asked_for_are_read_and_older_ones_trimmed(client):
    add(client, *[(f"query {hour}", 1, timedelta(hours=hour)) for hour in range(10)])
    since, until = START + timedelta(hours=3), START + timedelta(hours=5)
    assert set(read_misses(client, since, until).queries) == {"query 3", "query 4", "query 5"}
    assert trim_misses(client, since) == 3
    assert set(read_misses(client, START, END).queries) == {f"query {hour}" for hour in range(3, 10)}


@pytest.mark.parametrize("number", [PAGE - 1, PAGE, 2 * PAGE + 1])
def test_no_miss_is_read_twice_or_skipped_where_pages_meet(client, number):
    add(client, *[(f"query {place % 7}", 1, timedelta()) for place in range(number)])
    assert sum(times for times, _ in read_misses(client, START, END).queries.values()) == number


HOSTILE = [
    {"q": b"\xff\xfe milk", "n": "1"},
    {"q": "x" * (MOST_BYTES + 1), "n": "1"},
    {"q": "", "n": "1"},
    {"n": "1"},
    {"query": "milk"},
    {"q": "milk", "n": "0"},
    {"q": "milk", "n": "-3"},
    {"q": "milk", "n": "1e3"},
    {"q": "milk", "n": "9" * 5_000},
    {"q": "milk", "n": "٣"},
]


def test_what_no_journal_wrote_is_counted_and_skipped(client):
    for fields in HOSTILE:
        client.xadd(MISSES, fields, id=f"{int(START.timestamp() * 1000)}-*")
    client.xadd(MISSES, {"q": "tea"}, id=f"{int(START.timestamp() * 1000)}-*")
    found = read_misses(client, START, END)
    assert found.queries == {"tea": (1, 1)}
    assert found.unreadable == len(HOSTILE)


@given(st.dictionaries(st.sampled_from([b"q", b"n", b"x"]), st.binary(max_size=30) | st.text().map(str.encode)))
def test_an_entry_is_a_query_and_a_count_or_nothing(fields):
    found = parse_miss(fields)
    if found is not None:
        query, count = found
        assert query.encode() == fields[b"q"]
        assert count == int(fields.get(b"n", b"1")) > 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text("ab \n\0é", min_size=1, max_size=3), st.integers(1, 999)), max_size=30))
def test_the_stream_gives_back_what_was_put_in(client, entries):
    client.flushall()
    add(client, *[(query, count, timedelta(hours=place)) for place, (query, count) in enumerate(entries)])
    wanted = {query: sum(count for other, count in entries if other == query) for query, _ in entries}
    found = read_misses(client, START, END)
    assert {query: times for query, (times, _) in found.queries.items()} == wanted
    for query, (_, days) in found.queries.items():
        assert days == len({place // 24 for place, (other, _) in enumerate(entries) if other == query})


def test_something_else_in_the_streams_place_is_an_error_that_says_so(client):
    client.set(MISSES, "in the way")
    for act in (lambda: read_misses(client, START, END), lambda: trim_misses(client, END)):
        with pytest.raises(ServiceError, match="wanted the stream stillhouse:2:misses"):
            act()


def test_no_redis_is_an_error_not_an_empty_stream():
    with closing(connect("redis://127.0.0.1:1")) as nowhere, pytest.raises(ServiceError, match="wanted Redis at"):
        read_misses(nowhere, START, END)
