"""What the processes of one service have in common: their counts, and how much each caller has asked.

One anonymous mapping, made before the processes are: it needs no file, and goes when the last of them does.
"""

import mmap
import zlib

COUNTS_BYTES = 64 * 1024
CALLERS = 2**17
"""Places in the table of callers: two addresses share one, and so their allowance, with a chance of one in so many."""


class Shared:
    """The memory that `workers` processes share, each of which has a `number` from 0 on."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._counts = mmap.mmap(-1, workers * COUNTS_BYTES)
        self.callers: memoryview[float] = memoryview(mmap.mmap(-1, CALLERS * 8)).cast("d")

    def tell(self, worker: int, counts: bytes) -> None:
        """Put a process's counts where the others find them. Raises ValueError for more than COUNTS_BYTES."""
        told = b"%08x%08x%b" % (zlib.crc32(counts), len(counts), counts)
        if len(told) > COUNTS_BYTES:
            raise ValueError(f"wanted at most {COUNTS_BYTES - 16:,} bytes of counts, got {len(counts):,}")
        start = worker * COUNTS_BYTES
        self._counts[start : start + len(told)] = told

    def told(self, worker: int) -> bytes:
        """The counts a process told last, also one that has died since; b"" for none."""
        start = worker * COUNTS_BYTES
        for _ in range(3):  # again where they were being written just then
            size = int(self._counts[start + 8 : start + 16].strip(b"\0") or b"0", 16)
            counts = self._counts[start + 16 : start + 16 + size]
            if size and b"%08x" % zlib.crc32(counts) == self._counts[start : start + 8]:
                return counts
        return b""
