"""The answers to the queries a process is asked most, in its own memory: a hit costs no round trip and no normalising."""

from collections.abc import Container
from typing import NamedTuple

from lru import LRU

from cache.answer import Found
from labels.normalise import MAX_QUERY_CHARS

LONGEST = 2 * MAX_QUERY_CHARS  # characters of a text as typed: longer ones would take more memory than they are worth


class Kept(NamedTuple):
    """An answer, the query it is to (in normal form), and until when it counts, by `time.perf_counter`."""

    query: str
    found: Found
    until: float


class Tier:
    """The last `entries` answers asked for, by the text as it was typed, all of one release; none where that is 0."""

    def __init__(self, entries: int, release: str | None) -> None:
        self.release = release
        self._held: LRU[str, Kept] | None = LRU(entries) if entries else None
        self.get = self._held.get if self._held is not None else _none
        """What is kept for a text as typed, or None; it is then the last to go. (C code, called as it is.)"""

    def __len__(self) -> int:
        return len(self._held) if self._held is not None else 0

    def keep(self, typed: str, kept: Kept) -> None:
        """Keep an answer, in place of the one longest not asked for where there is no room."""
        if self._held is not None and len(typed) <= LONGEST:
            self._held[typed] = kept

    def drop(self, queries: Container[str]) -> None:
        """Forget the answers to these queries (in normal form), however they were typed."""
        if self._held is not None:
            for typed in [typed for typed, kept in self._held.items() if kept.query in queries]:
                self._held.pop(typed, None)


def _none(typed: str) -> Kept | None:
    return None
