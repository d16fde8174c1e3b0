"""How often one caller may ask: the generic cell rate algorithm (ITU-T I.371), in a table that all processes share."""

from time import monotonic

RESERVED = 1024
"""The first places of the table are for callers known by number (those with an API key)."""


class Rates:
    """Lets each caller ask `rate` times a second, and so many at once after a second's pause (one at least).

    `table` holds, by caller, when (`time.monotonic`, the same clock in all processes) it will have made good for what it
    asked. Two processes that write one entry at the same moment lose a question of the count: nobody minds.
    """

    def __init__(self, rate: float, table: "memoryview[float]") -> None:
        self._every, self._table = 1 / rate, table
        self._slack = max(1.0, rate) * self._every - self._every

    def wait(self, caller: int | str) -> float:
        """0 where the caller (its number, or its address) may ask now; otherwise in how many seconds."""
        if isinstance(caller, str):
            caller = RESERVED + hash(caller) % (len(self._table) - RESERVED)
        now = monotonic()
        due = max(self._table[caller], now)
        if due - now > self._slack:
            return due - now - self._slack
        self._table[caller] = due + self._every
        return 0.0
