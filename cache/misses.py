"""The stream of queries that the head had no answer for, as the night reads it. What lies there was written by strangers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import ResponseError

from cache.client import Client, reaching
from cache.layout import MISSES
from labels.errors import ServiceError
from labels.normalise import MAX_QUERY_CHARS

PAGE = 2_000  # entries read at once
MOST_BYTES = 4 * MAX_QUERY_CHARS  # of a query's UTF-8
MOST_DIGITS = 9  # of a count


@dataclass(frozen=True, slots=True)
class Misses:
    """By query, how often the head had no answer for it and on how many days (UTC); and how many entries were unreadable."""

    queries: dict[str, tuple[int, int]]
    unreadable: int


def read_misses(client: Client, since: datetime, until: datetime) -> Misses:
    """The misses of that time, both ends included, by Redis's clock.

    Raises ServiceError where Redis can't be reached or holds no stream there.
    """
    told: dict[str, tuple[int, int, int]] = {}  # the last: the latest day, which the stream is in the order of
    unreadable = 0
    for day, fields in _entries(client, _milliseconds(since), _milliseconds(until)):
        found = parse_miss(fields)
        if found is None:
            unreadable += 1
            continue
        query, count = found
        times, days, latest = told.get(query, (0, 0, -1))
        told[query] = (times + count, days + (day != latest), day)
    return Misses({query: (times, days) for query, (times, days, _) in told.items()}, unreadable)


def parse_miss(fields: Any) -> tuple[str, int] | None:  # noqa: ANN401 - whatever lies there
    """An entry's query and how often it was missed; None where the entry is not one that a journal wrote."""
    if not isinstance(fields, dict):
        return None
    text, digits = fields.get(b"q"), fields.get(b"n", b"1")
    if not text or len(text) > MOST_BYTES or len(digits) > MOST_DIGITS or not digits.isdigit() or not int(digits):
        return None
    try:
        return text.decode(), int(digits)
    except UnicodeDecodeError:
        return None


def trim_misses(client: Client, before: datetime) -> int:
    """Remove the misses from before that time; how many there were. Raises as `read_misses` does."""
    with _stream(client):
        return int(client.xtrim(MISSES, minid=str(_milliseconds(before)), approximate=False))


def _entries(client: Client, since: int, until: int) -> Iterator[tuple[int, Any]]:
    """Each entry's day, counted since 1970, and its fields."""
    start = str(since)
    while True:
        with _stream(client):
            page: Any = client.xrange(MISSES, start, str(until), PAGE)
        for number, fields in page:
            yield int(number.partition(b"-")[0]) // 86_400_000, fields
        if len(page) < PAGE:
            return
        start = f"({page[-1][0].decode()}"


@contextmanager
def _stream(client: Client) -> Iterator[None]:
    try:
        with reaching(client):
            yield
    except ResponseError as error:
        raise ServiceError(
            f"wanted the stream {MISSES} in Redis, got: {error}; see what lies there, or go on without it: log.misses = false"
        ) from error


def _milliseconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)
