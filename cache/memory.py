"""Will it fit: what a generation takes of Redis's memory, and whether Redis has that to give and would keep it."""

import random
import time
from collections.abc import Iterable, Mapping
from itertools import starmap
from typing import Any, cast

import redis
from redis.exceptions import NoPermissionError, ResponseError

from cache.client import Client, pipeline_of
from cache.layout import GENERATIONS, MISSES, PEOPLE, bucket_count, bucket_key
from labels.errors import PublishError

KEY_BYTES = 110
"""What Redis takes for a key of ours and its value beside the value's bytes; see LOG.md for the measurement."""
SPARE = 1.12
"""Its allocator rounds a value's size up by up to a quarter, by a tenth on average."""
SAMPLE = 200
FREEING_SECONDS = 10.0
MIB = 2**20


def line_bytes(query: str, value: str) -> int:
    """Of a query and its entry in a bucket, with a tab between them and a line break."""
    return len(query.encode()) + len(value.encode()) + 2


def forecast_bytes(entries: Iterable[tuple[str, str]]) -> int:
    """What a generation of such entries will take of Redis's memory, in bytes."""
    sizes = list(starmap(line_bytes, entries))
    return generation_bytes(sum(sizes), bucket_count(len(sizes)))


def generation_bytes(text: int, buckets: int) -> int:
    """What so many bytes of lines in so many buckets take of Redis's memory, in bytes."""
    return round(text * SPARE + buckets * KEY_BYTES)


def check_memory(client: Client, needed: int) -> str:
    """Whether a generation of `needed` bytes can be written beside what is there, and would stay.

    Gives "" where it can, or why Redis would not say. Raises PublishError where there is no room or where Redis is set
    to evict keys that no time to live marks.
    """
    try:
        nodes = _memory(client)
    except (NoPermissionError, ResponseError) as error:
        return f"Redis does not say how much memory it may use ({error}); allow INFO, and it is checked"
    for name, facts in nodes.items():
        limit, policy = int(facts.get("maxmemory", 0)), str(facts.get("maxmemory_policy", "noeviction"))
        if limit == 0:
            continue
        where = f" on {name}" if name else ""
        if policy.startswith("allkeys"):
            raise PublishError(
                f"wanted a Redis that keeps what it is given, got maxmemory-policy {policy}{where}, by which it would drop"
                " answers of the head when its memory is full; set it to volatile-ttl (redis-cli CONFIG SET"
                " maxmemory-policy volatile-ttl, and in redis.conf), which drops the student's answers first"
            )
        share, used = needed / len(nodes), int(facts["used_memory"])
        stays = policy.startswith("volatile") and used + share > limit and _lasting_bytes(client)
        if stays:  # the student's answers fill what there is by day, and make room
            used = min(used, int(facts.get("used_memory_startup", 0)) + stays // len(nodes))
        if used + share > limit:
            todo = (
                ""
                if policy.startswith("volatile")
                else "set maxmemory-policy volatile-ttl (the student's answers give way), "
            )
            raise PublishError(
                f"wanted {share / MIB:,.1f} MiB for the new generation beside the {used / MIB:,.1f} MiB in use{where}, got"
                f" maxmemory {limit / MIB:,.1f} MiB; {todo}raise maxmemory, or lower cache.kept_generations, cache.head_mib or"
                " cache.head_share"
            )
    return ""


def measured_bytes(client: Client, generation: str, buckets: int) -> int | None:
    """What the generation's buckets take of Redis's memory, by a sample of them; None where Redis does not say."""
    some = random.sample(range(buckets), min(SAMPLE, buckets))
    try:
        sizes = pipeline_of(client, [("MEMORY USAGE", bucket_key(generation, bucket)) for bucket in some])
    except (NoPermissionError, ResponseError):
        return None
    return round(sum(size or 0 for size in sizes) / len(some) * buckets)


def _lasting_bytes(client: Client) -> int:
    """What our keys without a time to live take, beside a few small ones; 0 where Redis does not say."""
    generations = cast(dict[bytes, bytes], client.hgetall(GENERATIONS))
    sizes = [measured_bytes(client, name.decode(), abs(int(n))) for name, n in generations.items()]
    if None in sizes:
        return 0
    others = pipeline_of(client, [("MEMORY USAGE", key) for key in (PEOPLE, MISSES)])
    return sum(size or 0 for size in [*sizes, *others])


def _memory(client: Client) -> Mapping[str, Mapping[str, Any]]:
    """Redis's own account by node ("" standalone), once what it was told to forget is freed."""
    until = time.monotonic() + FREEING_SECONDS
    while True:
        if isinstance(client, redis.RedisCluster):
            found = client.info("memory", target_nodes=redis.RedisCluster.PRIMARIES)
            nodes = {"": found} if "used_memory" in found else found  # of a Cluster of one it gives that one's
        else:
            nodes = {"": client.info("memory")}
        if time.monotonic() > until or not any(node.get("lazyfree_pending_objects") for node in nodes.values()):
            return nodes
        time.sleep(0.05)
