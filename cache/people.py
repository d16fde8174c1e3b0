"""What people say of a query by day: it overlays every generation, at once, and is written anew from the labels at night."""

from collections.abc import Collection, Mapping
from typing import Any, cast

from cache.client import Client, reaching
from cache.layout import CHANGED, PEOPLE
from labels.errors import PublishError
from labels.normalise import normalise


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


def read_people(client: Client) -> dict[str, str]:
    """What Redis holds of what people said. Raises ServiceError where Redis can't be reached."""
    with reaching(client):
        found = cast(dict[bytes, bytes], client.hgetall(PEOPLE))
    return {str(query, "utf-8", "replace"): str(raw, "utf-8", "replace") for query, raw in found.items()}
