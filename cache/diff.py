"""Reading a generation back, and the labels that changed between two."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cache.canonical import ALIAS, placed
from cache.client import Client, reaching, read_keys
from cache.layout import BrokenError, bucket_key, hashes_of, unpack, unseal, values_of
from cache.release import bucket_keys
from labels.errors import PublishError
from labels.records import Release


@dataclass(frozen=True, slots=True)
class Change:
    """A query whose label differs between two releases: its entries' JSON there, None where a release has none."""

    query: str
    before: bytes | None
    after: bytes | None

    @property
    def kind(self) -> Literal["added", "removed", "changed"]:
        """What happened to the label."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"


def read_generation(client: Client, release: Release) -> Iterator[tuple[str, bytes]]:
    """Every query of a release's generation and its entry's JSON, some hundred buckets in memory at once.

    Raises PublishError where a bucket is gone or broken, and ServiceError where Redis can't be reached.
    """
    for chunk in _chunks(client, release):
        yield from chunk


def diff(client: Client, before: Release, after: Release) -> Iterator[Change]:
    """The labels that differ: removed and changed ones first, then those added. Author and confidence are not compared.

    Raises as `read_generation` does.
    """
    for chunk in _chunks(client, before):
        there = _read(client, after, [query for query, _ in chunk])
        for query, value in chunk:
            other = there.get(query)
            if other is None or (other != value and values_of(other) != values_of(value)):
                yield Change(query, value, other)
    for chunk in _chunks(client, after):
        there = _read(client, before, [query for query, _ in chunk])
        yield from (Change(query, None, value) for query, value in chunk if query not in there)


def _chunks(client: Client, release: Release) -> Iterator[list[tuple[str, bytes]]]:
    for keys in bucket_keys(release.generation, release.buckets):
        opened = _open(client, release, keys)
        yield [line for key in keys for line in _lines(release, key, opened[key]) if not line[0].startswith(ALIAS)]


def _read(client: Client, release: Release, queries: list[str]) -> dict[str, bytes]:
    """The entries of these queries, and of others beside them in the same buckets.

    Generations lie in the order of a hash, so the queries of some buckets of one are in about as many of another.
    """
    places = map(placed, queries) if release.canonical else queries
    numbers = sorted({(one * release.buckets) >> 32 for one in hashes_of(places)})
    opened = _open(client, release, [bucket_key(release.generation, number) for number in numbers])
    return {query: value for key, bucket in opened.items() for query, value in _lines(release, key, bucket)}


def _open(client: Client, release: Release, keys: list[str]) -> Mapping[str, bytes]:
    with reaching(client):
        raws = read_keys(client, keys)
    opened = {}
    for key, raw in zip(keys, raws, strict=True):
        if raw is None:
            raise PublishError(
                f"release {release.release} has lost a bucket, {key}: its generation is gone or was evicted"
            )
        try:
            opened[key] = unseal(raw)
        except BrokenError as error:
            raise _broken(release, key, error) from error
    return opened


def _lines(release: Release, key: str, bucket: bytes) -> list[tuple[str, bytes]]:
    try:
        return list(unpack(bucket))
    except BrokenError as error:
        raise _broken(release, key, error) from error


def _broken(release: Release, key: str, error: Exception) -> PublishError:
    return PublishError(f"release {release.release} has a broken bucket, {key} ({error}); publish it anew")
