"""What people say of a query by day: it overlays every generation, at once, and is written anew from the labels at night."""

import time
from collections.abc import Collection, Mapping
from typing import Any, cast

from pydantic_core import from_json

from cache.client import Client, reaching
from cache.layout import CHANGED, PEOPLE
from labels.errors import PublishError
from labels.normalise import normalise

JUST_SAID_SECONDS = 60


def say_people(client: Client, said: Mapping[str, str]) -> None:
    """Let these answers (query in normal form, `layout.entry` with the time it was made) be given from now on.

    Raises PublishError for a query that is not in normal form and ServiceError where Redis can't be reached.
    """
    for query in said:
        if not query or normalise(query) != query:
            raise PublishError(
                f"the query {query!r} is not in normal form, so no lookup would find it; normalise it first"
            )
    if said:
        with reaching(client):
            client.hset(PEOPLE, mapping=cast(Any, dict(said)))
            client.publish(CHANGED, PEOPLE)


def withdraw_people(client: Client, queries: Collection[str]) -> None:
    """Let what people said of these queries count no longer. Raises ServiceError where Redis can't be reached."""
    if queries:
        with reaching(client):
            client.hdel(PEOPLE, *queries)
            client.publish(CHANGED, PEOPLE)


def resync_people(client: Client, said: Mapping[str, str]) -> None:
    """Make what Redis holds equal to `said`. Raises as `say_people` does.

    What was said in the last minute stays, whatever `said` holds of its query: it may be newer.
    """
    with reaching(client):
        there = {
            str(query, "utf-8", "replace"): bytes(raw)
            for query, raw in cast(dict[bytes, bytes], client.hgetall(PEOPLE)).items()
        }
    fresh = {query for query, raw in there.items() if _made(raw) > time.time() - JUST_SAID_SECONDS}
    say_people(client, {q: value for q, value in said.items() if q not in fresh and there.get(q) != value.encode()})
    withdraw_people(client, there.keys() - said.keys() - fresh)


def _made(raw: bytes) -> float:
    """When an entry was made, in seconds since 1970; 0 where it does not say or is none."""
    try:
        found = from_json(raw)
    except ValueError:
        return 0
    return found[-1] if isinstance(found, list) and found and isinstance(found[-1], int) else 0
