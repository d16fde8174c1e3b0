"""A circuit breaker: a student that fails again and again is left alone for a moment, then tried with one question.

(M. Nygard, Release It!, 2007; the states' names are his.)
"""

from collections.abc import Callable
from time import monotonic
from typing import Literal

FAILURES = 5
PAUSE_SECONDS = 1.0

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Closed, it lets every question through; after `failures` in a row it is open and lets none through.

    After `pause` seconds it lets one through: where that is answered it closes, otherwise it stays open as long again.
    """

    def __init__(
        self, failures: int = FAILURES, pause: float = PAUSE_SECONDS, clock: Callable[[], float] = monotonic
    ) -> None:
        self.opened = 0  # how often, for those who watch
        self._most, self._pause, self._clock = failures, pause, clock
        self._failures = 0
        self._until: float | None = None  # when an open one lets the next question through
        self._probing = False

    @property
    def state(self) -> State:
        """Whether questions go through."""
        if self._until is None:
            return "closed"
        return "half-open" if self._probing or self._clock() >= self._until else "open"

    @property
    def blocks(self) -> bool:
        """Whether a question would be turned away now."""
        return self._until is not None and (self._probing or self._clock() < self._until)

    def start(self) -> bool:
        """Whether a question may go through now; then `succeeded` or `failed` must follow."""
        if self.blocks:
            return False
        self._probing = self._until is not None
        return True

    def succeeded(self) -> None:
        """The question was answered."""
        self._failures, self._until, self._probing = 0, None, False

    def failed(self) -> None:
        """The question was not answered."""
        self._failures += 1
        if self._probing or self._failures >= self._most:
            self.opened += self._until is None
            self._until, self._probing = self._clock() + self._pause, False
