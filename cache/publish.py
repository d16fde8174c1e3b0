"""Publishing a generation to Redis and switching the release to it in one step.

A generation's keys are written and read back before its manifest; the release names it only after that. What a
failed publish leaves behind is in no release, so no caller sees it; the next publish removes it.
"""

import json
import random
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import filterfalse, islice, pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from redis.exceptions import NoPermissionError, RedisError

from cache.canonical import ALIAS, placed
from cache.client import UNREACHED, Client, count_keys, reaching, read_keys, write_keys
from cache.layout import GENERATIONS, LAYOUT, bucket_count, bucket_key, hashes_of, lines_of, manifest_key, pack
from cache.memory import check_memory, generation_bytes, measured_bytes
from cache.release import KEPT_GENERATIONS, Ready, current_release, remove_unkept, switch, unsound_buckets
from labels.errors import PublishError, StillhouseError
from labels.normalise import normalise
from labels.records import Release

CHUNK = 5_000  # entries that are checked at once
BUCKETS_AT_ONCE = 256
SAMPLE = 4  # buckets of each chunk that are compared, byte for byte


@dataclass(frozen=True, slots=True)
class Published:
    """What a publish did: whether it wrote the generation, what that was to take of Redis's memory and takes, in bytes.

    `measured` is by a sample of keys, None where Redis does not say. `note` says what could not be checked.
    """

    written: bool
    forecast: int = 0
    measured: int | None = None
    note: str = ""


def publish(
    client: Client,
    entries: Iterable[tuple[str, str]],
    release: Release,
    *,
    kept: int = KEPT_GENERATIONS,
    ready: Ready | None = None,
) -> Published:
    """Write `entries` (query in normal form, value from `layout.entry`) as `release.generation` and serve `release`.

    Of a canonical release there may be aliases among them, which do not count as its entries. `ready` is called with the
    release before it is switched to, and raises to refuse. Does nothing where that release is already served, and writes
    nothing where its generation is already there; one with buckets lost or broken since is written again. Of the
    generations `kept` stay. Raises PublishError where the generation can't be written and checked, ServiceError where Redis
    can't be reached; what was served before is then served still.
    """
    _check_release(release)
    with reaching(client), _explaining(release):
        serving = current_release(client)
        there = _is_there(client, release)
        if there and serving and serving.release == release.release:
            return Published(written=False)
        remove_unkept(client, kept, besides=release.generation if there else None)
        with _registered(client, release):
            done = Published(written=False) if there else _write(client, entries, release)
            if ready:
                ready(release)
            switch(client, release)
        with suppress(RedisError):  # the release is served; what can't be removed now goes at the next publish
            remove_unkept(client, kept)
    return done


@contextmanager
def _registered(client: Client, release: Release) -> Iterator[None]:
    """Sees to it that what is written of a release that is not served after all can be found and removed."""
    try:
        yield
    except BaseException:
        with suppress(*UNREACHED, RedisError):  # a publisher beside this one may have removed it, and gone on
            client.hset(GENERATIONS, release.generation, str(release.buckets))
        raise


def _is_there(client: Client, release: Release) -> bool:
    """Whether the generation was written before, whole. Raises PublishError where it is of other facts than the release."""
    raw = cast(bytes | None, client.get(manifest_key(release.generation)))
    if raw is None:
        return False
    if raw.decode("utf-8", "replace") != (wanted := _manifest(release)):
        raise PublishError(
            f"release {release.release} wanted generation {release.generation} to be {wanted}, there is one that is"
            f" {raw[:300]!r}; give the release a generation of its own"
        )
    return not unsound_buckets(client, release)


def _manifest(release: Release) -> str:
    names = ("entries", "buckets", "task", "task_version", "normalisation", "canonical")
    return json.dumps({"layout": LAYOUT} | {name: getattr(release, name) for name in names})


def _write(client: Client, entries: Iterable[tuple[str, str]], release: Release) -> Published:
    """Write a generation's buckets, read them back, then write its manifest."""
    name = release.generation
    lines = _checked(entries, release)
    forecast = generation_bytes(len(lines.text), release.buckets)
    note = check_memory(client, forecast)
    client.delete(manifest_key(name))  # of one that lost buckets since
    client.hset(GENERATIONS, name, str(release.buckets))  # before its first key, so that these can be found and removed
    for keys, sample in _fill(client, lines, release):
        _read_back(client, keys, sample)
    client.set(manifest_key(name), _manifest(release))
    return Published(True, forecast, measured_bytes(client, name, release.buckets), note)


@dataclass(frozen=True, slots=True)
class _Lines:
    """A generation's lines, one after the other; for each where it ends (before them all 0), and its query's hash."""

    text: bytes | bytearray
    ends: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]


def _checked(entries: Iterable[tuple[str, str]], release: Release) -> _Lines:
    """The entries as lines, fit to publish but for repeated queries."""
    text, ends, hashes, found = bytearray(), [np.zeros(1, np.int64)], array("Q"), 0
    pairs = iter(entries)
    while chunk := list(islice(pairs, CHUNK)):
        queries = [query for query, _ in chunk]
        plain = [query.removeprefix(ALIAS) for query in queries] if release.canonical else queries
        _check_normal(plain)
        found += len(queries) if plain is queries else sum(map(str.__eq__, queries, plain))
        some = lines_of(chunk)
        breaks = np.flatnonzero(np.frombuffer(some, np.uint8) == ord("\n"))
        if len(breaks) > len(chunk):
            raise PublishError("wanted entries as layout.entry makes them, got one with a line break in it")
        ends.append(breaks + (len(text) + 1))
        text += some
        hashes.extend(hashes_of(map(placed, queries) if release.canonical else queries))
    if found != release.entries:
        raise PublishError(f"the release says {release.entries} entries, got {found}; count what is published")
    return _Lines(text, np.concatenate(ends), np.frombuffer(hashes, np.uint64))


def _fill(client: Client, lines: _Lines, release: Release) -> list[tuple[list[str], dict[str, bytes]]]:
    """Write the buckets; gives the keys of each write and a sample of what they must hold."""
    buckets = enumerate(map(pack, _by_bucket(lines, release.buckets)))
    written = []
    while some := list(islice(buckets, BUCKETS_AT_ONCE)):
        rows = {bucket_key(release.generation, number): packed for number, packed in some}
        write_keys(client, rows)
        written.append((list(rows), dict(random.sample(list(rows.items()), min(SAMPLE, len(rows))))))
    return written


def _by_bucket(lines: _Lines, buckets: int) -> Iterator[memoryview]:
    """The lines of each bucket, from the first to the last. Raises PublishError for a query that comes twice."""
    order = lines.hashes.argsort()
    hashes = lines.hashes[order]
    same = np.flatnonzero(np.diff(hashes) == 0)  # where a query may be that of the line before
    suspects = [_query(lines, place) for place in order[np.union1d(same, same + 1)].tolist()]
    if len(set(suspects)) < len(suspects):
        twice = next(query for query, times in Counter(suspects).items() if times > 1)
        raise PublishError(f"the query {twice!r} comes twice; publish one label a query")
    parts = [None, pa.py_buffer(lines.ends), pa.py_buffer(lines.text)]
    ordered = pa.Array.from_buffers(pa.large_binary(), len(order), parts).take(pa.array(order))
    ends = np.frombuffer(ordered.buffers()[1], np.int64)
    starts = ends[np.searchsorted(hashes * buckets >> 32, np.arange(buckets + 1))].tolist()
    text = memoryview(ordered.buffers()[2])
    return (text[start:end] for start, end in pairwise(starts))


def _query(lines: _Lines, place: int) -> str:
    return lines.text[lines.ends[place] : lines.ends[place + 1]].partition(b"\t")[0].decode()


def _check_normal(queries: Sequence[str]) -> None:
    # Joined by spaces they are normal if and only if each is, and none empty: normalising joins nothing across a space.
    # Text all of ASCII is checked several times faster.
    for some in (list(filter(str.isascii, queries)), list(filterfalse(str.isascii, queries))):
        if normalise(joined := " ".join(some)) != joined or (some and not joined):
            break
    else:
        return
    for query in queries:
        if not query or normalise(query) != query:
            raise PublishError(
                f"the query {query!r} is not in normal form, so no lookup would find it; normalise it first"
            )


def _read_back(client: Client, keys: list[str], sample: dict[str, bytes]) -> None:
    there = count_keys(client, keys)
    if there != len(keys):
        why = "is Redis evicting (maxmemory), or did another publisher clear up? Run the same command again"
        raise PublishError(f"{len(keys)} buckets were written but {there} are there; {why}")
    for (key, value), back in zip(sample.items(), read_keys(client, list(sample)), strict=True):
        if back != value:
            raise PublishError(
                f"{key} was read back other than it was written; does another program or publisher write there?"
            )


def _check_release(release: Release) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", release.generation):  # it becomes part of keys
        wanted = "wanted a generation's name of letters, digits, '.', '_' and '-'"
        raise PublishError(f"{wanted}, got {release.generation!r}")
    if release.buckets != bucket_count(release.entries):
        wanted = f"wanted {bucket_count(release.entries)} buckets for {release.entries} entries (layout.bucket_count)"
        raise PublishError(f"{wanted}, got {release.buckets}")


@contextmanager
def _explaining(release: Release) -> Iterator[None]:
    """Turns whatever else goes wrong into a PublishError that says how things stand."""
    try:
        yield
    except (StillhouseError, *UNREACHED, NoPermissionError):
        raise
    except Exception as error:
        raise PublishError(
            f"release {release.release} was not published: {error}. What was served before still is; put right what"
            " went wrong and run the same command again"
        ) from error
