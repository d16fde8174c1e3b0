"""Publishing a generation to Redis, switching the release to it in one step, and switching back.

A generation's keys are written and read back before its manifest; the release names it only after that. What a
failed publish leaves behind is in no release, so no caller sees it; the next publish removes it.
"""

import json
import random
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice

import redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError, RedisError, TimeoutError

from cache.client import reaching
from cache.layout import GENERATIONS, RELEASE, RELEASES, every_key, manifest_key, parse_release, query_key
from labels.errors import PublishError, StillhouseError
from labels.normalise import normalise
from labels.records import Release

CHUNK = 5_000
SAMPLE = 50  # entries of each chunk that are compared, byte for byte
KEPT_GENERATIONS = 3


def publish(client: redis.Redis, entries: Iterable[tuple[str, str]], release: Release) -> None:
    """Write `entries` (query in normal form, value from `layout.entry`) as `release.generation` and serve `release`.

    Does nothing where that release is already served, and writes nothing where its generation is already there.
    Raises PublishError where the generation can't be written and checked, ServiceError where Redis can't be reached;
    what was served before is then served still.
    """
    with reaching(client), _explaining(release):
        serving = current_release(client)
        if serving and serving.release == release.release:
            return
        _remove_unkept(client)
        manifest = client.get(manifest_key(_checked_name(release.generation)))
        if manifest is None:
            _write(client, entries, release)
        elif (held := json.loads(manifest)["entries"]) != release.entries:
            wanted = f"release {release.release} wanted {release.entries} entries"
            raise PublishError(f"{wanted}, its generation {release.generation} holds {held}; give it one of its own")
        _switch(client, release)
        with suppress(RedisError):  # the release is served; what can't be removed now goes at the next publish
            _remove_unkept(client)


def current_release(client: redis.Redis) -> Release | None:
    """The release being served, None before the first. Raises ServiceError, or PublishError for a broken record."""
    with reaching(client):
        raw = client.get(RELEASE)
    return _parsed(raw) if raw is not None else None


def releases(client: redis.Redis) -> list[Release]:
    """Every release served, in the order last published, the latest at the end. Raises as `current_release` does."""
    with reaching(client):
        return [_parsed(raw) for raw in client.lrange(RELEASES, 0, -1)]


def standing(client: redis.Redis) -> list[Release]:
    """Those of `releases` that can be served: the current one, and all whose generation is still kept."""
    serving = current_release(client)
    with reaching(client):
        kept = [one for one in releases(client) if client.exists(manifest_key(one.generation))]
    return kept + ([serving] if serving and serving not in kept else [])


def rollback(client: redis.Redis, release: str | None = None) -> Release:
    """Serve an earlier release again, in one atomic step: the one named, else the one before the current.

    Gives the release now served. Raises PublishError where there is none such or its generation is gone, and
    ServiceError where Redis can't be reached; nothing has changed then.
    """
    target = _earlier(current_release(client), releases(client), release)

    def switch(pipe: Pipeline) -> None:
        if not pipe.exists(manifest_key(target.generation)):
            raise PublishError(
                f"can't go back to release {target.release}: its generation {target.generation} is gone"
                f" (the last {KEPT_GENERATIONS} are kept); `stillhouse releases` lists the others"
            )
        pipe.multi()
        pipe.set(RELEASE, target.to_json())

    with reaching(client):
        client.transaction(switch, RELEASE, manifest_key(target.generation))
    return target


def _earlier(serving: Release | None, history: list[Release], wanted: str | None) -> Release:
    if serving is None:
        raise PublishError("there is no release to go back from; publish one first: `stillhouse night`")
    if wanted is not None:
        for known in history:
            if known.release == wanted:
                return known
        names = ", ".join(known.release for known in history)
        raise PublishError(f"wanted release {wanted}, got no such one; there are: {names}")
    order = [known.release for known in history]
    place = order.index(serving.release) if serving.release in order else len(order)
    if place == 0:
        raise PublishError(f"there is no release before {serving.release}, the first one; it stays served")
    return history[place - 1]


def _write(client: redis.Redis, entries: Iterable[tuple[str, str]], release: Release) -> None:
    """Write a generation's keys, read them back, then write its manifest."""
    client.sadd(GENERATIONS, release.generation)  # first, so that whatever follows can be found and removed
    written: list[tuple[list[str], dict[str, str]]] = []
    seen: set[str] = set()
    pairs = iter(entries)
    while chunk := list(islice(pairs, CHUNK)):
        for query, _ in chunk:
            _check_query(query, seen)
        rows = {query_key(release.generation, query): value for query, value in chunk}
        client.mset(rows)
        written.append((list(rows), dict(random.sample(list(rows.items()), min(SAMPLE, len(rows))))))
    if len(seen) != release.entries:
        raise PublishError(f"the release says {release.entries} entries, got {len(seen)}; count what is published")
    for keys, sample in written:
        _read_back(client, keys, sample)
    facts = {"entries": len(seen), "task": release.task, "normalisation": release.normalisation}
    client.set(manifest_key(release.generation), json.dumps(facts))


def _check_query(query: str, seen: set[str]) -> None:
    if query in seen:
        raise PublishError(f"the query {query!r} comes twice; publish one label a query")
    if normalise(query) != query or not query:
        raise PublishError(f"the query {query!r} is not in normal form, so no lookup would find it; normalise it first")
    seen.add(query)


def _read_back(client: redis.Redis, keys: list[str], sample: dict[str, str]) -> None:
    there = client.exists(*keys)
    if there != len(keys):
        raise PublishError(f"{len(keys)} entries were written but {there} are there; is Redis evicting (maxmemory)?")
    values = client.mget(list(sample))
    for (key, value), back in zip(sample.items(), values, strict=True):
        if back != value.encode():
            raise PublishError(f"{key} was read back other than it was written; does another program write there?")


def _switch(client: redis.Redis, release: Release) -> None:
    """Serve `release`, and put it last in the list, right after the one it replaces (what a rollback goes back to)."""

    def switch(pipe: Pipeline) -> None:
        raw = pipe.get(RELEASE)
        last = [_parsed(raw)] if raw is not None else []
        last.append(release)
        moved = {known.release for known in last}
        history = [known for known in map(_parsed, pipe.lrange(RELEASES, 0, -1)) if known.release not in moved]
        pipe.multi()
        pipe.delete(RELEASES)
        pipe.rpush(RELEASES, *[known.to_json() for known in history + last])
        pipe.set(RELEASE, release.to_json())

    client.transaction(switch, RELEASE, RELEASES)


def _remove_unkept(client: redis.Redis) -> None:
    """Remove every generation that no recent release names: unfinished ones, and those past the number kept."""
    serving = current_release(client)
    recent = [known.generation for known in reversed(releases(client))]
    kept = set(list(dict.fromkeys(recent))[:KEPT_GENERATIONS]) | ({serving.generation} if serving else set())
    for raw in client.smembers(GENERATIONS):
        generation = str(raw, "utf-8") if isinstance(raw, bytes) else raw
        if generation in kept:
            continue
        client.unlink(manifest_key(generation))  # first, so that nobody goes back to a generation half removed
        found = client.scan_iter(match=every_key(generation), count=CHUNK)
        while keys := list(islice(found, CHUNK)):
            client.unlink(*keys)
        client.srem(GENERATIONS, generation)


def _checked_name(generation: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", generation):  # it becomes part of a key and of a SCAN pattern
        raise PublishError(f"wanted a generation's name of letters, digits, '.', '_' and '-', got {generation!r}")
    return generation


def _parsed(raw: bytes | str) -> Release:
    try:
        return parse_release(raw)
    except ValueError as error:
        raise PublishError(
            f"{RELEASE} or {RELEASES} in Redis holds no release ({error}); does another program write there?"
            f" To start anew: `redis-cli DEL {RELEASE} {RELEASES}`, then `stillhouse night`"
        ) from error


@contextmanager
def _explaining(release: Release) -> Iterator[None]:
    """Turns whatever else goes wrong into a PublishError that says how things stand."""
    try:
        yield
    except (StillhouseError, ConnectionError, TimeoutError):
        raise
    except Exception as error:
        raise PublishError(
            f"release {release.release} was not published: {error}. What was served before still is; put right what"
            " went wrong and run the same command again"
        ) from error
