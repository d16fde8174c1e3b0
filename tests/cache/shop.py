"""What the cache's tests share: releases, entries, and students by hand."""

import asyncio
from contextlib import asynccontextmanager

from cache.client import connect_async
from cache.layout import entry
from cache.lookup import Lookup
from cache.publish import publish
from labels.errors import EngineError
from labels.records import Release
from labels.semantic_roles import SemanticRoles


def release(number, entries, student="s1"):
    return Release(f"r{number}", f"g{number}", student, "semantic_roles", f"n{number}", entries, 1)


def value(product, brand="", attributes=()):
    return SemanticRoles(product=product, brand=brand, attributes=list(attributes)).to_json()


def rows(*queries, brand=""):
    return [(query, entry(value(query, brand), 0.9, "teacher")) for query in queries]


def publish_queries(client, number, *queries, brand="", student="s1"):
    made = release(number, len(queries), student)
    publish(client, rows(*queries, brand=brand), made)
    return made


class Echo:
    """A student that takes the whole query for the product, after `seconds`."""

    name = "s1"

    def __init__(self, seconds=0.0):
        self.seconds, self.asked = seconds, []

    async def ask(self, query):
        self.asked.append(query)
        await asyncio.sleep(self.seconds)
        return value(query), 0.5


class Says:
    """A student that always answers the same text."""

    name = "s1"

    def __init__(self, raw):
        self.raw = raw

    async def ask(self, query):
        return self.raw, 0.5


class Broken:
    """A student whose engine fails."""

    name = "s1"

    async def ask(self, query):
        raise EngineError("vLLM at http://127.0.0.1:1 refused the connection")


@asynccontextmanager
async def looking(url, student=None, deadline=5.0):
    """A lookup in no hurry, so that a busy machine fails no test that is not about time."""
    async with Lookup(connect_async(url), student, SemanticRoles, deadline) as lookup:
        yield lookup
