"""Lookups in one process, from Redis and from its own memory, beside bare redis-py and beside other caches.

All ask for the same queries with the same values, drawn by Zipf's law. Bare redis-py (with hiredis) GETs plain string keys;
its answers a second are the 1 of every ratio, taken by turns in the same process, by `await` or without as the other is.
The other caches hold the most frequent entries alone, each in a process of its own beside a bare redis-py there.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import redis
import redis.asyncio

from benchmarks.labelling import CACHE
from benchmarks.online import ENTRIES, TASK, RoteStudent, make_entries, private_redis, release_of, traffic
from benchmarks.peers.caches import PEERS, Job, time_cache
from benchmarks.rates import Contender, by_turns, compare, told
from cache.client import connect, connect_async
from cache.layout import parse_entry
from cache.lookup import PROCESS_ENTRIES, Lookup
from cache.publish import publish
from cache.sync import SyncLookup

CALLERS, BATCH, WAITING = 64, 64, 10_000
ASKED = 30 * BATCH
"""Queries of a turn; ten times as many where none leaves the process, or many go at once."""
HOT = 5_000
"""So many of the most frequent entries fit into the in-process tier for certain."""
COMPARED = 200
PATIENCE_SECONDS = 5.0  # a deadline that a busy machine keeps: no hit may turn into a miss here
PLAIN_DB = "1"  # the plain string keys lie apart from ours
PEER_ROUNDS, PEER_SECONDS, PEER_ASKED = 7, 0.2, 20_000
CHUNK = 5_000
RATIOS = {  # a contender, and the bare redis-py it is measured by
    "redis_hit_vs_redispy": ("redis_hit", "redispy"),
    "redis_hit_64_vs_redispy": ("redis_hit_64", "redispy_64"),
    "process_hit_vs_redispy": ("process_hit", "redispy"),
    "process_value_vs_redispy": ("process_value", "redispy"),
    "zipf_vs_redispy": ("zipf", "redispy"),
    "many_vs_mget": ("many", "mget"),
    "many_from_redis_vs_mget": ("many_from_redis", "mget"),
    "sync_redis_hit_vs_redispy": ("sync_redis_hit", "sync_redispy"),
    "sync_process_hit_vs_redispy": ("sync_process_hit", "sync_redispy"),
    "sync_many_vs_mget": ("sync_many", "sync_mget"),
}
OURS = {  # by where a cache's answers come from, and whether one awaits them: our ratio that it has to be behind
    ("process", True): "process_hit_vs_redispy",
    ("process", False): "sync_process_hit_vs_redispy",
    ("file", False): "sync_process_hit_vs_redispy",  # no server is asked there either
    ("server", True): "redis_hit_vs_redispy",
    ("server", False): "sync_redis_hit_vs_redispy",
}


def run(entries: int = ENTRIES, rounds: int = 15, peers: str = CACHE) -> dict[str, Any]:
    """Ratios of answers a second (medians of `rounds`, with least and greatest), the rates and CPU behind them, the peers.

    `peers` holds the other caches' environments; "" leaves them out.
    """
    with private_redis() as url:
        made = make_entries(entries)
        _fill(url, made)
        queries, held = [query for query, _ in made], made[: max(peer.entries for peer in PEERS.values())]
        del made
        with _settled():
            figures, rates = asyncio.run(_ours(url, queries, dict(held[:COMPARED]), rounds))
    beside = {"peers": _peers(Path(peers).expanduser(), held, figures)} if peers else {}
    return figures | beside | {"entries": entries, "rounds": rounds, "rates": rates}


@contextmanager
def _settled() -> Iterator[None]:
    """What is there now is no part of what is timed: a million queries to walk at every full collection."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _fill(url: str, made: list[tuple[str, str]]) -> None:
    """The entries as a release of ours, and as plain string keys."""
    with closing(connect(url)) as client:
        publish(client, made, release_of(len(made)))
    with redis.Redis.from_url(f"{url}/{PLAIN_DB}") as plain:
        for start in range(0, len(made), CHUNK):
            plain.mset(dict(made[start : start + CHUNK]))


async def _ours(
    url: str, queries: Sequence[str], known: dict[str, str], rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures told first, and what each contender did."""
    async with _lookups(url, queries) as ours:
        with redis.Redis.from_url(f"{url}/{PLAIN_DB}") as plain:
            async with redis.asyncio.Redis.from_url(f"{url}/{PLAIN_DB}") as awaited:
                for lookup in ours.awaited:
                    await _check(lookup, known)
                rates = await by_turns(_contenders(ours, plain, awaited, queries, rounds), rounds)
        ours.check_hits()
    figures: dict[str, Any] = {}
    for name, (one, other) in RATIOS.items():
        figures |= compare(name, *([rate.per_second for rate in rates[each]] for each in (one, other)))
    return figures | await _one_flight(url), {name: told(found) for name, found in rates.items()}


@dataclass(frozen=True)
class _Lookups:
    """Lookups with warm in-process tiers (of all traffic, of the hottest entries) and without one; the last two are sync."""

    warm: Lookup
    hot: Lookup
    without: Lookup
    sync_hot: SyncLookup
    sync_without: SyncLookup

    @property
    def awaited(self) -> Sequence[Lookup]:
        """Those of the caller's loop."""
        return self.warm, self.hot, self.without

    def check_hits(self) -> None:
        """Raises RuntimeError where an answer came from elsewhere than the cache: such a rate says nothing."""
        for one in (*self.awaited, self.sync_hot.lookup, self.sync_without.lookup):
            counts = one.journal.counts
            if others := sum(counts.answers(source) for source in ("student", "tail-cache", "none")):
                raise RuntimeError(f"wanted hits alone, got {others} other answers; try again on an idle machine")


@asynccontextmanager
async def _lookups(url: str, queries: Sequence[str]) -> AsyncIterator[_Lookups]:
    def made(entries: int = PROCESS_ENTRIES) -> Lookup:
        return Lookup(connect_async(url), {}, TASK, deadline=PATIENCE_SECONDS, process_entries=entries)

    async with made() as warm, made() as hot, made(0) as without:
        with SyncLookup(made()) as sync_hot, SyncLookup(made(0)) as sync_without:
            for batch in _batches(queries[:HOT]):
                await hot.get_many(batch)
                sync_hot.get_many(batch)
            for batch in _batches(traffic(queries, 6 * PROCESS_ENTRIES, seed=1)):
                await warm.get_many(batch)
            yield _Lookups(warm, hot, without, sync_hot, sync_without)


def _contenders(
    ours: _Lookups, plain: redis.Redis, awaited: "redis.asyncio.Redis", queries: Sequence[str], rounds: int
) -> dict[str, Contender]:
    # each drawn apart: what one contender asked for must not be in the tier for the next
    mixed, hot = _turns(queries, rounds, ASKED, seed=2), _turns(queries[:HOT], rounds, 10 * ASKED, seed=3)
    batches = [list(_batches(turn)) for turn in _turns(queries, rounds, 10 * ASKED, seed=4)]

    async def value(query: str) -> object:
        return (await ours.hot.get(query)).value

    return {
        "redispy": Contender(_awaiting(awaited.get), mixed),
        "redis_hit": Contender(_awaiting(ours.without.get), mixed),
        "zipf": Contender(_awaiting(ours.warm.get), mixed),
        "process_hit": Contender(_awaiting(ours.hot.get), hot),
        "process_value": Contender(_awaiting(value), hot),
        "redispy_64": Contender(_at_once(awaited.get), mixed),
        "redis_hit_64": Contender(_at_once(ours.without.get), mixed),
        "mget": Contender(_awaiting(awaited.mget), batches, BATCH),
        "many": Contender(_awaiting(ours.warm.get_many), batches, BATCH),
        "many_from_redis": Contender(_awaiting(ours.without.get_many), batches, BATCH),
        "sync_redispy": Contender(_calling(plain.get), mixed),
        "sync_redis_hit": Contender(_calling(ours.sync_without.get), mixed),
        "sync_process_hit": Contender(_calling(ours.sync_hot.get), hot),
        "sync_mget": Contender(_calling(plain.mget), batches, BATCH),
        "sync_many": Contender(_calling(ours.sync_without.get_many), batches, BATCH),
    }


def _turns(queries: Sequence[str], rounds: int, asked: int, seed: int) -> list[Sequence[str]]:
    drawn = traffic(queries, asked * (rounds + 1), seed)
    return [drawn[start : start + asked] for start in range(0, len(drawn), asked)]


def _batches(queries: Sequence[str]) -> Iterator[Sequence[str]]:
    return (queries[start : start + BATCH] for start in range(0, len(queries), BATCH))


def _awaiting(get: Callable[[Any], Awaitable[object]]) -> Callable[[Sequence[Any]], Awaitable[None]]:
    async def make(calls: Sequence[Any]) -> None:
        for call in calls:
            await get(call)

    return make


def _at_once(get: Callable[[Any], Awaitable[object]]) -> Callable[[Sequence[Any]], Awaitable[None]]:
    """CALLERS at once, each one call after the other."""
    one_caller = _awaiting(get)

    async def make(calls: Sequence[Any]) -> None:
        await asyncio.gather(*(one_caller(calls[caller::CALLERS]) for caller in range(CALLERS)))

    return make


def _calling(get: Callable[[Any], object]) -> Callable[[Sequence[Any]], None]:
    def make(calls: Sequence[Any]) -> None:
        for call in calls:
            get(call)

    return make


async def _check(lookup: Lookup, known: dict[str, str]) -> None:
    """Raises RuntimeError where an answer is not the one put in."""
    for query, entry in known.items():
        answer, wanted = await lookup.get(query), parse_entry(entry, tuple(TASK.model_fields)).value
        if answer.source != "cache" or answer.value != wanted:
            raise RuntimeError(f"wanted {wanted} for {query!r}, got {answer}")


async def _one_flight(url: str) -> dict[str, Any]:
    """How often the student is asked by so many callers at once with one new query, and how many it answers in time."""
    student = RoteStudent()
    async with Lookup(connect_async(url), {student.name: student}, TASK) as lookup:
        await lookup.current()
        answers = await asyncio.gather(*(lookup.get("a query that nobody asked before") for _ in range(WAITING)))
    answered = sum(answer.source == "student" for answer in answers)
    return {"one_flight": student.asked, "one_flight_callers": WAITING, "one_flight_answered": answered}


def _peers(folder: Path, held: list[tuple[str, str]], figures: dict[str, Any]) -> dict[str, Any]:
    """Each other cache's ratio to its own bare redis-py, and the ratio of ours that does the same."""
    table: dict[str, Any] = {}
    for name, peer in PEERS.items():
        entries = held[: peer.entries]
        asked = traffic([query for query, _ in entries], PEER_ASKED)
        with private_redis() as url, TemporaryDirectory() as work:
            rates = time_cache(folder, Job(name, url, work, entries, asked, PEER_ROUNDS, PEER_SECONDS))
        ours = OURS[peer.where, peer.in_loop]
        if isinstance(rates, str):
            table[name] = {"not_measured": rates}
        else:
            table[name] = compare("vs_redispy", rates.cache, rates.bare)
            table[name] |= {"per_s": round(median(rates.cache)), "where": peer.where, "entries": len(entries)}
            table[name] |= {ours: figures[ours], "behind": table[name]["vs_redispy"] < figures[ours]}
        sys.stderr.write(f"{name}: {table[name]}\n")
    return table
