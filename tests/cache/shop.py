"""What the cache's tests share: releases, entries, and students by hand."""

import asyncio
import json
from contextlib import asynccontextmanager

from cache.client import connect_async
from cache.layout import NAMES, bucket_count, bucket_key, bucket_of, entry, find, unseal
from cache.lookup import Lookup
from cache.publish import publish
from labels.errors import EngineError
from labels.normalise import NORMALISATION_VERSION
from labels.records import Release
from labels.semantic_roles import SemanticRoles

FIELDS = ("product", "brand", "attributes")


def release(number, entries, student="s1", **facts):
    """A release as the night makes it: r1 of generation g1 and so on."""
    told = {
        "release": f"r{number}",
        "generation": f"g{number}",
        "student": student,
        "task": "semantic_roles",
        "night": f"n{number}",
        "task_version": SemanticRoles.version(),
        "entries": entries,
        "buckets": bucket_count(entries),
        "normalisation": NORMALISATION_VERSION,
    }
    return Release(**told | facts)


def value(product, brand="", attributes=()):
    return {"product": product, "brand": brand, "attributes": list(attributes)}


def rows(*queries, brand=""):
    return [(query, entry(value(query, brand), 0.9, "teacher")) for query in queries]


def publish_queries(client, number, *queries, brand="", student="s1"):
    made = release(number, len(queries), student)
    publish(client, rows(*queries, brand=brand), made)
    return made


def stored(client, made, query):
    """What a generation holds for a query, as a lookup reads it."""
    return find(unseal(client.get(bucket_key(made.generation, bucket_of(query, made.buckets)))), query)


def keys_of(client, generation):
    """All keys of a generation."""
    found = client.keys(f"{NAMES}{{{generation}:*") + client.keys(f"{NAMES}{{{generation}}}*")
    return {key.decode() for key in found}


class Echo:
    """A student that takes the whole query for the product, after `seconds`."""

    name = "s1"

    def __init__(self, seconds=0.0):
        self.seconds, self.asked = seconds, []

    async def ask(self, query):
        self.asked.append(query)
        await asyncio.sleep(self.seconds)
        return json.dumps(value(query)), 0.5


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
async def looking(url, student=None, deadline=5.0, cluster=False):
    """A lookup in no hurry, so that a busy machine fails no test that is not about time."""
    students = {student.name: student} if student else {}
    async with Lookup(connect_async(url, cluster), students, SemanticRoles, deadline=deadline) as lookup:
        yield lookup
