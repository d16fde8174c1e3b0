"""Other caches, asked for what they hold; run by a cache's own Python (see caches.py).

In one process, by turns: the cache's own `get`, and bare redis-py's GET of the same value under its plain key, both in an
event loop or both outside one. What a cache gives is turned into the value that was put in, as its users would.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

import redis

Get = Callable[[str], Any]
Entries = dict[str, str]
BATCH = 20
LIFE_SECONDS = 86_400


async def cashews_memory(entries: Entries, url: str, folder: str) -> Get:
    """A dictionary in the process."""
    from cashews import Cache

    return await _filled(Cache(), entries, f"mem://?size={2 * len(entries)}")


async def cashews_client_side(entries: Entries, url: str, folder: str) -> Get:
    """Redis, with a copy in the process that Redis's invalidations keep true."""
    from cashews import Cache
    from cashews.backends.memory import Memory

    return await _filled(Cache(), entries, url, client_side=True, local_cache=Memory(size=2 * len(entries)))


async def cashews_redis(entries: Entries, url: str, folder: str) -> Get:
    """Redis alone."""
    from cashews import Cache

    return await _filled(Cache(), entries, url)


async def _filled(cache: Any, entries: Entries, url: str, **more: Any) -> Get:  # noqa: ANN401
    cache.setup(url, **more)
    await cache.init()
    for query, value in entries.items():
        await cache.set(query, value, expire=LIFE_SECONDS)
    get: Get = cache.get
    return get


async def diskcache(entries: Entries, url: str, folder: str) -> Get:
    """SQLite, memory-mapped."""
    from diskcache import Cache

    cache = Cache(folder)
    with cache.transact():
        for query, value in entries.items():
            cache.set(query, value)
    get: Get = cache.get
    return get


async def redisvl(entries: Entries, url: str, folder: str) -> Get:
    """A Redis hash an entry, with an embedding (here of one number) and metadata (here the value)."""
    from redisvl.extensions.cache.embeddings import EmbeddingsCache

    cache = EmbeddingsCache(redis_client=redis.Redis.from_url(url))
    for query, value in entries.items():
        cache.set(query, "model", [0.0], {"value": value})
    return lambda query: cache.get(query, "model")["metadata"]["value"]


async def langchain(entries: Entries, url: str, folder: str) -> Get:
    """A Redis hash an entry."""
    from langchain_community.cache import RedisCache
    from langchain_core.outputs import Generation

    cache = RedisCache(redis.Redis.from_url(url))
    for query, value in entries.items():
        cache.update(query, "model", [Generation(text=value)])
    return lambda query: cache.lookup(query, "model")[0].text


async def litellm(entries: Entries, url: str, folder: str) -> Get:
    """A Redis string an entry; it parses the JSON."""
    return (await _litellm(entries, url)).get_cache  # type: ignore[no-any-return]


async def litellm_async(entries: Entries, url: str, folder: str) -> Get:
    """The same in an event loop."""
    return (await _litellm(entries, url)).async_get_cache  # type: ignore[no-any-return]


async def _litellm(entries: Entries, url: str) -> Any:  # noqa: ANN401
    from litellm.caching.redis_cache import RedisCache

    host, port = url.removeprefix("redis://").removesuffix("/0").split(":")
    cache = RedisCache(host=host, port=port, password=None)
    for query, value in entries.items():
        cache.set_cache(query, value)
    return cache


async def gptcache_map(entries: Entries, url: str, folder: str) -> Get:
    """A dictionary in the process, kept in a file."""
    from gptcache.manager import get_data_manager

    manager = get_data_manager(data_path=f"{folder}/map.txt", max_size=2 * len(entries))
    return _gptcache(entries, data_manager=manager)


async def gptcache_faiss(entries: Entries, url: str, folder: str) -> Get:
    """The nearest by an embedding (here hashed characters), in FAISS; the answer in SQLite."""
    import numpy as np
    from gptcache.manager import CacheBase, VectorBase, get_data_manager

    def embed(text: str, **_: object) -> Any:  # noqa: ANN401
        vector = np.zeros(64, dtype="float32")
        for first in range(len(text) - 2):
            vector[crc32(text[first : first + 3].encode()) % 64] += 1
        return vector

    stored = CacheBase("sqlite", sql_url=f"sqlite:///{folder}/sqlite.db")
    vectors = VectorBase("faiss", dimension=64, index_path=f"{folder}/faiss.index", top_k=1)
    return _gptcache(
        entries,
        data_manager=get_data_manager(stored, vectors, max_size=2 * len(entries)),
        embedding_func=embed,
    )


def _gptcache(entries: Entries, **made: Any) -> Get:  # noqa: ANN401
    from gptcache import cache
    from gptcache.adapter.api import get, put
    from gptcache.processor.pre import get_prompt

    cache.init(pre_embedding_func=get_prompt, **made)
    for query, value in entries.items():
        put(query, value)
    asked: Get = get
    return asked


IN_LOOP = (cashews_memory, cashews_client_side, cashews_redis, litellm_async)
CACHES = {
    cache.__name__: cache for cache in (*IN_LOOP, diskcache, redisvl, langchain, litellm, gptcache_map, gptcache_faiss)
}


async def main() -> None:
    """Fill the cache that the job names, see that it answers rightly, time it, print the rates."""
    job = json.loads(sys.stdin.read())
    entries, asked, url = dict(job["entries"]), job["asked"], job["url"]
    fill, in_loop = CACHES[job["cache"]], CACHES[job["cache"]] in IN_LOOP
    Path(job["folder"]).mkdir(exist_ok=True)
    get = await fill(entries, f"{url}/0", job["folder"])
    with redis.Redis.from_url(f"{url}/1") as client:  # apart from the cache's own keys
        client.mset(entries)
    bare = redis.asyncio.Redis.from_url(f"{url}/1").get if in_loop else redis.Redis.from_url(f"{url}/1").get
    for query in islice(entries, 100):
        given = get(query)
        given = await given if isinstance(given, Awaitable) else given
        if (json.loads(given) if isinstance(given, str) else given) != json.loads(entries[query]):
            raise ValueError(f"{job['cache']} gave {given!r} for {query!r}, wanted {entries[query]!r}")
    contenders = {"cache": (get, cycle(asked)), "bare": (bare, cycle(asked))}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(job["rounds"] + 1):
        for name in sorted(contenders, reverse=bool(turn % 2)):
            rates[name].append(await _rate(*contenders[name], in_loop, job["seconds"]))
    print(json.dumps({name: found[1:] for name, found in rates.items()}))  # the first turn warms up


async def _rate(get: Get, asked: Any, in_loop: bool, seconds: float) -> float:  # noqa: ANN401
    """Answers a second, one caller after the other."""
    answers, started = 0, perf_counter()
    while (spent := perf_counter() - started) < seconds:
        batch = list(islice(asked, BATCH))
        if in_loop:
            for query in batch:
                await get(query)
        else:
            for query in batch:
                get(query)
        answers += BATCH
    return answers / spent


if __name__ == "__main__":
    asyncio.run(main())
