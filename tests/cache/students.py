"""Students by hand, for the tests of lookup."""

import asyncio
import json
from contextlib import asynccontextmanager

from cache.client import connect_async
from cache.lookup import Lookup
from labels.errors import EngineError
from labels.semantic_roles import SemanticRoles


class Student:
    """A student of any name: it takes the whole query for the product, after `seconds` and once its `gate` is open.

    While `down` it fails.
    """

    def __init__(self, name="s1", seconds=0.0, brand=""):
        self.name, self.seconds, self.brand, self.down, self.asked = name, seconds, brand, False, []
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, query):
        self.asked.append(query)
        await asyncio.sleep(self.seconds)
        await self.gate.wait()
        if self.down:
            raise EngineError("vLLM at http://127.0.0.1:1 refused the connection")
        return json.dumps({"product": query, "brand": self.brand, "attributes": []}), 0.5


@asynccontextmanager
async def looking_with(url, *students, deadline=5.0, cluster=False, **options):
    """A lookup with these students, in no hurry."""
    named = {student.name: student for student in students}
    async with Lookup(connect_async(url, cluster), named, SemanticRoles, deadline=deadline, **options) as lookup:
        yield lookup


async def seen(lookup, name):
    """Wait until the lookup serves the release of this name, and Redis can be asked."""
    async with asyncio.timeout(10):
        while True:
            release, reason = await lookup.current()
            if release and release.release == name and not reason:
                return
            await asyncio.sleep(0.01)
