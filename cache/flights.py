"""Asking the student once for a query, however many wait for the answer, and no more questions at once than it bears."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class FullError(Exception):
    """As many questions are under way and waiting as may be."""


class Flights(Generic[T]):
    """Questions under way by key. `in_flight` are put at once and `queue` more wait; beyond these `join` refuses."""

    def __init__(self, in_flight: int, queue: int) -> None:
        self.in_flight, self.queue = in_flight, queue
        self._gate = asyncio.Semaphore(in_flight)
        self._flights: dict[Hashable, asyncio.Task[T]] = {}

    @property
    def under_way(self) -> int:
        """Questions put and not yet answered."""
        return min(len(self._flights), self.in_flight)

    @property
    def waiting(self) -> int:
        """Questions that wait to be put."""
        return max(0, len(self._flights) - self.in_flight)

    def has(self, key: Hashable) -> bool:
        """Whether a question of this key is under way or waits."""
        return key in self._flights

    async def join(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]], until: float) -> T:
        """What the flight of this key brings, which `ask` makes where there is none yet.

        A flight outlives its first caller: it ends when it has landed, or at its own first caller's `until`. Raises
        TimeoutError at `until` (the loop's clock), FullError where one more would be too many, and whatever `ask` raises.
        """
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self.in_flight + self.queue:
                raise FullError
            flight = self._flights[key] = asyncio.create_task(self._fly(ask, until))
            flight.add_done_callback(lambda done: self._landed(key, done))
        async with asyncio.timeout_at(until):
            return await asyncio.shield(flight)  # one caller's leaving does not end it for the others

    async def aclose(self) -> None:
        """End all."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(self, ask: Callable[[], Coroutine[Any, Any, T]], until: float) -> T:
        async with asyncio.timeout_at(until), self._gate:
            return await ask()

    def _landed(self, key: Hashable, flight: asyncio.Task[T]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # seen, even where every caller has left
