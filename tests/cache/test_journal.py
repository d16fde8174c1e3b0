import asyncio
from contextlib import ExitStack, aclosing, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.client import connect, connect_async
from cache.days import day_of, read_days
from cache.journal import BOUNDS, BUFFERED, CHUNK, MISS_DAYS, SOURCES, Counts, Journal, missed_key, today
from cache.layout import DAY, MISSES
from cache.misses import read_misses, trim_misses
from tests.cache.servers import binaries, cluster, server
from tests.cache.shop import Echo, looking, publish_queries

NOWHERE = "redis://127.0.0.1:1"


def flush(journal, url):
    async def once():
        redis = connect_async(url)
        try:
            return await journal.flush(redis)
        finally:
            await redis.aclose()

    return asyncio.run(once())


def written(client, day=None):
    """The day's answers by source, as the night reads them."""
    found = [one for one in read_days(client, datetime.fromisoformat(day or today()).date(), 1) if one]
    return {source: found[0].answers(source) for source in SOURCES if found[0].answers(source)} if found else {}


def missed(client):
    found = read_misses(client, datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    assert not found.unreadable
    return {query: times for query, (times, _) in found.queries.items()}


@given(st.lists(st.floats(0, 1e5)))
def test_a_bucket_holds_what_took_no_longer_than_its_bound(latencies):
    journal = Journal()
    for latency in latencies:
        journal.answered("student", latency)
    assert list(accumulate(journal.counts.latency["student"])) == [
        sum(latency <= bound for latency in latencies) for bound in BOUNDS
    ]
    assert journal.counts.answers("student") == len(latencies)
    assert journal.counts.milliseconds["student"] == pytest.approx(sum(latencies))


def test_flushes_add_up_to_what_was_counted_however_many_there_are(client, redis_url):
    journal, other = Journal(), Journal()
    journal.answered("cache", 0.2, 64)
    journal.missed("oat milk")
    assert flush(journal, redis_url)
    assert flush(journal, redis_url)
    journal.answered("cache", 3.0)
    journal.answered("none", 0.1)
    journal.missed("oat milk")
    journal.missed("oat milk")
    journal.missed("tea")
    other.answered("cache", 0.2)
    assert flush(journal, redis_url)
    assert flush(other, redis_url)
    assert written(client) == {"cache": 66, "none": 1}
    assert missed(client) == {"oat milk": 3, "tea": 1}
    assert client.xlen(MISSES) == 3  # the two of one flush are one entry
    assert client.pfcount(missed_key(today())) == 2
    assert journal.counts.answers("cache") == 65  # since the start, for /metrics


def test_nothing_is_written_where_nothing_was_counted(client, redis_url):
    assert flush(Journal(), redis_url)
    assert client.keys() == []


def test_two_flushes_at_once_write_each_miss_once(client, redis_url):
    journal = Journal()
    for number in range(3 * CHUNK):
        journal.missed(f"query {number}")

    async def both():
        async with aclosing(connect_async(redis_url)) as redis:
            return await asyncio.gather(journal.flush(redis), journal.flush(redis))

    assert asyncio.run(both()) == [True, True]
    assert missed(client) == {f"query {number}": 1 for number in range(3 * CHUNK)}


def test_what_redis_could_not_take_is_written_when_it_is_back(client, redis_url):
    journal = Journal()
    journal.answered("student", 80.0)
    journal.missed("oat milk")
    assert not flush(journal, NOWHERE)
    journal.missed("oat milk")
    assert not flush(journal, NOWHERE)
    assert (journal.failures, journal.waiting, journal.counts.lost) == (2, 1, 0)
    assert flush(journal, redis_url)
    assert written(client) == {"student": 1}
    assert missed(client) == {"oat milk": 2}
    assert journal.waiting == 0


def test_misses_beyond_the_buffer_are_counted_as_lost():
    journal = Journal()
    for number in range(BUFFERED + 5):
        journal.missed(f"query {number}")
    journal.missed("query 0")  # which waits already: it costs no room
    assert (journal.waiting, journal.counts.lost, journal.counts.misses) == (BUFFERED, 5, BUFFERED + 6)
    assert not flush(journal, NOWHERE)
    assert (journal.waiting, journal.counts.lost) == (BUFFERED, 5)  # lost once
    day = day_of(today(), [journal.counts.since(Counts()).encode()])  # as the night will read it
    assert (day.misses, day.lost) == (BUFFERED + 6, 5)


def test_a_redis_that_refuses_one_command_of_a_flush_has_taken_the_others_once(client, redis_url):
    journal = Journal()
    journal.answered("cache", 1.0)
    journal.missed("oat milk")
    client.set(MISSES, "in the way")
    assert not flush(journal, redis_url)
    assert written(client) == {"cache": 1}
    client.delete(MISSES)
    assert flush(journal, redis_url)
    assert written(client) == {"cache": 1}
    assert missed(client) == {"oat milk": 1}


@asynccontextmanager
async def deaf(path):
    """In front of the Redis at this socket: it hears every command, and its answer to HSET never arrives."""

    async def serve(reader, writer):
        behind, to = await asyncio.open_unix_connection(path)
        while asked := await reader.read(1 << 16):
            to.write(asked)
            answer = await behind.read(1 << 16)
            if b"HSET" in asked:
                break
            writer.write(answer)
        to.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_totals_whose_answer_was_lost_on_the_way_are_not_counted_twice(client, redis_url):
    journal = Journal()
    journal.answered("cache", 1.0)
    journal.missed("oat milk")

    async def through_the_proxy():
        async with deaf(redis_url.removeprefix("unix://")) as url, aclosing(connect_async(url)) as redis:
            return await journal.flush(redis)

    assert not asyncio.run(through_the_proxy())
    assert written(client) == {"cache": 1}  # it was done, though the journal can't know
    assert flush(journal, redis_url)
    assert written(client) == {"cache": 1}
    assert missed(client) == {"oat milk": 1}


def test_each_day_has_its_own_counts_though_redis_was_away_at_midnight(client, redis_url):
    day = ["2026-11-20"]
    journal = Journal(today=lambda: day[0])
    journal.answered("cache", 1.0)
    assert flush(journal, redis_url)
    journal.answered("cache", 1.0, 2)
    journal.missed("oat milk")
    day[0] = "2026-11-21"
    assert not flush(journal, NOWHERE)
    journal.answered("student", 90.0, 5)
    assert not flush(journal, NOWHERE)
    assert flush(journal, redis_url)
    assert written(client, "2026-11-20") == {"cache": 3}
    assert written(client, "2026-11-21") == {"student": 5}
    assert 0 < client.ttl(DAY + "2026-11-20") <= 60 * 86_400


def test_a_query_that_is_no_utf8_holds_up_no_other(client, redis_url):
    journal = Journal()
    journal.missed("\ud800 milk")
    journal.missed("tea")
    assert flush(journal, redis_url)
    assert missed(client) == {"? milk": 1, "tea": 1}


def test_the_stream_keeps_no_query_for_longer_than_its_days_though_no_night_ever_trims_it(client, redis_url):
    long_ago = int((datetime.now(UTC) - timedelta(days=MISS_DAYS + 1)).timestamp() * 1000)
    for number in range(500):
        client.xadd(MISSES, {"q": f"old {number}"}, id=f"{long_ago}-{number + 1}")
    journal = Journal()
    journal.missed("tea")
    assert flush(journal, redis_url)
    assert client.xlen(MISSES) <= 101  # Redis trims by the hundred


def test_what_is_not_to_be_kept_reaches_no_redis(client, redis_url):
    silent, counting = Journal(days=False, misses=False), Journal(misses=False)
    for journal in (silent, counting):
        journal.answered("none", 1.0)
        journal.missed("my secret")
        assert journal.waiting == 0
    assert flush(silent, redis_url)
    assert client.keys() == []
    assert silent.counts.misses == 1  # for /metrics all the same
    assert flush(counting, redis_url)
    assert written(client) == {"none": 1}
    assert not client.exists(MISSES, missed_key(today()))


def test_what_callers_are_answered_is_what_the_night_reads(client, redis_url):
    publish_queries(client, 1, "oat milk")

    async def asked():
        async with looking(redis_url, Echo()) as lookup:
            await lookup.get_many(["oat milk", "OAT milk", "tea"])
            for query in ("oat milk", "tea", "tea"):
                await lookup.get(query)

    asyncio.run(asked())
    [day] = read_days(client, datetime.now(UTC).date(), 1)
    assert (day.total, day.answers("cache"), day.misses, day.missed) == (6, 3, 3, 1)
    assert day.answers("student") >= 1
    assert missed(client) == {"tea": 3}


@pytest.mark.parametrize("kind", ["redis-6.2", "valkey", "cluster"])
def test_what_a_journal_writes_is_read_back_from_every_kind_of_redis(kind):
    if (binary := binaries().get("redis" if kind == "cluster" else kind)) is None:
        pytest.skip(f"no {kind} here")
    clustered = kind == "cluster"
    with ExitStack() as stack:
        url = stack.enter_context(cluster(binary)).url if clustered else stack.enter_context(server(binary))
        journal = Journal()
        for query in ("tea", "tea", "oat milk"):
            journal.missed(query)
            journal.answered("student", 70.0)

        async def written_twice():
            async with aclosing(connect_async(url, clustered)) as redis:
                return [await journal.flush(redis), await journal.flush(redis)]

        assert asyncio.run(written_twice()) == [True, True]
        with closing(connect(url, clustered)) as client:
            [day] = read_days(client, datetime.now(UTC).date(), 8)
            assert (day.answers("student"), day.misses, day.missed) == (3, 3, 2)
            assert missed(client) == {"tea": 2, "oat milk": 1}
            assert trim_misses(client, datetime.now(UTC) + timedelta(days=1)) == 2
