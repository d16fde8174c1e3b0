"""Lookup for callers without an event loop: the same answers, from any thread.

What the process holds, and what Redis holds, is answered in the caller's own thread: to go over to the loop's and back costs
twice as much as the reading. The student is asked on the loop.

with SyncLookup(Lookup(connect_async(url), {student.name: student}, SemanticRoles)) as lookup:
    answer = lookup.get("organic whole milk")
"""

import asyncio
from collections.abc import Coroutine, Sequence
from threading import Thread
from typing import Any, Self, TypeVar

from cache.answer import Answer
from cache.lookup import REDIS_SHARE, Lookup
from cache.watch import UNREACHED
from cache.wire import Wires
from labels.records import Release

T = TypeVar("T")


class SyncLookup:
    """A `Lookup` that lives on an event loop in a thread of its own; its students must not be used on another loop."""

    def __init__(self, lookup: Lookup) -> None:
        """`lookup` must not be entered yet; this enters and closes it."""
        self.lookup = lookup
        # The half of Redis's time, so that the loop, which is asked where this fails, may find out what is the matter.
        self._wires = Wires(lookup.redis, lookup.deadline * REDIS_SHARE / 2)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="lookup", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self.lookup.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        """Close. What other threads wait for ends with `concurrent.futures.CancelledError`."""
        try:
            self._wait(self.lookup.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._wires.close()

    def get(self, query: str) -> Answer:
        """As `Lookup.get`. What the process holds is answered in the caller's own thread."""
        return self.lookup.known(query) or self.get_many((query,))[0]

    def get_many(self, queries: Sequence[str]) -> list[Answer]:
        """As `Lookup.get_many`."""
        lookup = self.lookup
        if not lookup.readable:
            return self._wait(lookup.get_many(queries))
        asked = lookup.begin(queries)
        if asked.left:
            keys = lookup.keys(asked)
            try:
                lookup.take(asked, keys, self._wires.read_many(keys))
                read = False
            except UNREACHED:
                read = True
            if asked.left:
                self._wait(lookup.find(asked, read))
        return lookup.end(asked)

    def current(self) -> tuple[Release | None, str]:
        """As `Lookup.current`."""
        return self._wait(self.lookup.current())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
