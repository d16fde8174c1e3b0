"""How answers lie in Redis: the keys, and what a bucket, an entry and a release look like as values.

A generation is an array of buckets. A bucket is one string: a line an entry, then a checksum, so that a lookup is one GET
on any Redis, standalone or Cluster, at little more memory than the answers' own. What the student answered lies beside the
bucket of its query, by a hash tag in the same slot of a Cluster, so that one MGET reads both.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from labels.records import Release

LAYOUT = 2
NAMES = f"stillhouse:{LAYOUT}:"
"""What all keys begin with. Another layout has other keys: while servers are replaced by newer ones, both kinds serve on."""
RELEASE = f"{NAMES}release"  # the release being served: the one key that lookups go by
# The braces put these into RELEASE's slot of a Cluster: one transaction switches, one node tells lookups what to go by.
RELEASES = f"{{{RELEASE}}}s"  # a list: every release served, the latest last
GENERATIONS = f"{{{RELEASE}}}:generations"  # a hash: every generation that may have keys, how many (see release.py)
PEOPLE = f"{{{RELEASE}}}:people"  # a hash: what people said of a query, whatever the release
COMING = f"{NAMES}coming"  # the release that is about to be served: servers make its student ready
SERVERS = f"{NAMES}servers"  # a hash: each server of lookups, when it was last there and which students it has ready
CHANGED = f"{NAMES}changed"  # a channel: one of the keys above was written; the message is the key
MISSES = f"{NAMES}misses"  # a stream: queries that the head had no answer for
DAY = f"{NAMES}day:"  # and a date: a hash of that day's lookups, counted by source and latency

PER_BUCKET = 12
"""Entries of a bucket on average: what a key costs Redis is shared by them, what a lookup reads grows with them."""
AUTHORS = ("teacher", "person", "simulated reviewer", "student")


_RELEASE = TypeAdapter(Release)
_RESIDUE = 0x2144DF1C  # the CRC-32 of any text followed by its own CRC-32


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached answer: the task's fields, how sure its author was (0 to 1), and who that was (one of AUTHORS).

    `made`: when, in seconds since 1970, where that is not when the release was made.
    """

    value: dict[str, Any]
    confidence: float
    author: str
    made: int | None = None


class BrokenError(ValueError):
    """What lies in Redis is not what was written there."""


def bucket_count(entries: int) -> int:
    """How many buckets a generation of so many entries has."""
    return max(1, -(-entries // PER_BUCKET))


def bucket_of(placed: str, buckets: int) -> int:
    """The bucket of a query: `placed` is its normal form, or its canonical form where the release is canonical.

    Buckets are ranges of the hash, so that the buckets of two generations, however many each has, are read side by side.
    """
    return (zlib.crc32(placed.encode()) * buckets) >> 32


def hashes_of(placed: Iterable[str]) -> Iterator[int]:
    """What `bucket_of` goes by, of many at once: `(hash * buckets) >> 32` is the bucket."""
    return map(zlib.crc32, map(str.encode, placed))


def bucket_key(generation: str, bucket: int) -> str:
    """The key of a bucket."""
    return f"{NAMES}{{{generation}:{bucket}}}"


def tail_key(generation: str, bucket: int, query: str) -> str:
    """The key of what the student answered to a query whose bucket this is; in a Cluster, in the bucket's own slot."""
    return f"{NAMES}{{{generation}:{bucket}}}:{query}"


def manifest_key(generation: str) -> str:
    """The key whose existence says that the generation is finished."""
    return f"{NAMES}{{{generation}}}:manifest"


def pack(lines: bytes | memoryview) -> bytes:
    """A bucket from its lines."""
    return seal(b"\n" + lines)


def lines_of(entries: Iterable[tuple[str, str]]) -> bytes:
    """The lines of queries (in normal form: without control characters) and their entries' JSON, as in a bucket."""
    return "".join([f"{query}\t{value}\n" for query, value in entries]).encode()


def unpack(bucket: bytes) -> Iterator[tuple[str, bytes]]:
    """The queries of an opened bucket and their entries' JSON. Raises BrokenError where a line is no entry."""
    for one in bucket.split(b"\n")[1:-1]:
        query, tab, value = one.partition(b"\t")
        try:
            text = query.decode()
        except UnicodeDecodeError as error:
            raise BrokenError(f"wanted a query, got {error}") from error
        if not tab:
            raise BrokenError("wanted lines of a query, a tab and an entry")
        yield text, value


def find(bucket: bytes, query: str) -> bytes | None:
    """The JSON of a query's entry in an opened bucket; None where it is not there. Raises BrokenError for a half line."""
    sought = b"\n%b\t" % query.encode()
    start = bucket.find(sought)
    if start < 0:
        return None
    start += len(sought)
    end = bucket.find(b"\n", start)
    if end < 0:
        raise BrokenError("wanted a line end after an entry")
    return bucket[start:end]


def seal(text: bytes) -> bytes:
    """The text and its checksum, a CRC-32."""
    return text + zlib.crc32(text).to_bytes(4, "little")


def is_sealed(raw: bytes) -> bool:
    """Whether it is as `seal` made it."""
    return zlib.crc32(raw) == _RESIDUE


def unseal(raw: bytes) -> bytes:
    """The reverse of `seal`. Raises BrokenError where the text is not what was sealed."""
    if zlib.crc32(raw) != _RESIDUE:
        raise BrokenError("the checksum is not that of the text")
    return raw[:-4]


def entry(value: Mapping[str, Any], confidence: float, author: str, made: int | None = None) -> str:
    """What the cache holds for a query: the values of the task's fields in the task's order, how sure, who (and when)."""
    told = [*value.values(), round(confidence, 3), AUTHORS.index(author), *([] if made is None else [made])]
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def parse_entry(raw: bytes | str, fields: tuple[str, ...]) -> Entry:
    """The reverse of `entry` for a task of such fields. Raises BrokenError where `raw` is no entry of theirs."""
    try:
        found = from_json(raw, allow_inf_nan=False)  # unlike json's, it refuses lone surrogates and endless nesting
    except ValueError as error:
        raise BrokenError(f"no JSON: {error}") from error
    more = len(found) - len(fields) if isinstance(found, list) else 0
    if more not in (2, 3):
        raise BrokenError(f"wanted an array of {len(fields)} values, a confidence and an author")
    confidence, author, *made = found[len(fields) :]
    if type(confidence) not in (int, float) or not 0 <= confidence <= 1:
        raise BrokenError("wanted a confidence from 0 to 1")
    if type(author) is not int or author not in range(len(AUTHORS)) or any(type(m) is not int for m in made):
        raise BrokenError("wanted an author's number and perhaps a time in seconds")
    return Entry(dict(zip(fields, found, strict=False)), confidence, AUTHORS[author], made[0] if made else None)


def values_of(raw: bytes | str) -> list[Any]:
    """The task's values in an entry, whatever the task. Raises BrokenError where `raw` is no entry."""
    try:
        found = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise BrokenError(f"no JSON: {error}") from error
    if not isinstance(found, list) or len(found) < 3:
        raise BrokenError("wanted an array of values, a confidence and an author")
    timed = found[-1] not in range(len(AUTHORS))  # no time since 1970 is as small as an author's number
    return found[: -3 if timed else -2]


def release_json(release: Release) -> str:
    """A release as Redis holds it: its own JSON and the layout of its generation."""
    return json.dumps({"layout": LAYOUT} | json.loads(release.to_json()))


def parse_release(raw: bytes | str) -> Release:
    """The reverse of `release_json`. Raises BrokenError where `raw` is no release of this layout."""
    try:
        found = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise BrokenError(f"wanted a release, got no JSON: {error}") from error
    if not isinstance(found, dict):
        raise BrokenError(f"wanted a release, got JSON of another kind ({type(found).__name__})")
    if (layout := found.pop("layout", 1)) != LAYOUT:
        raise BrokenError(f"it was published in layout {layout}, wanted {LAYOUT}: publish anew with this version")
    try:
        release = _RELEASE.validate_json(to_json(found), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise BrokenError(f"wanted a release, got one whose {first['loc'][0]} is wrong: {first['msg']}") from error
    if release.buckets < 1 or release.entries < 0:
        raise BrokenError(f"wanted a release of some buckets, got {release.buckets} with {release.entries} entries")
    return release
