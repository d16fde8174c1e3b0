"""Students by hand, for the tests of lookup."""

import asyncio
import json

from labels.errors import EngineError


class Student:
    """A student of any name: it takes the whole query for the product, after `seconds`; while `down` it fails."""

    def __init__(self, name="s1", seconds=0.0, brand=""):
        self.name, self.seconds, self.brand, self.down, self.asked = name, seconds, brand, False, []

    async def ask(self, query):
        self.asked.append(query)
        await asyncio.sleep(self.seconds)
        if self.down:
            raise EngineError("vLLM at http://127.0.0.1:1 refused the connection")
        return json.dumps({"product": query, "brand": self.brand, "attributes": []}), 0.5
