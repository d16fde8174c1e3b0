"""SIGTERM, by which a scheduler or a supervisor stops a command, ends it as Ctrl-C does."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """In the block, SIGTERM does what SIGINT does: it unwinds, so that the services in use are let go of.

    What handles SIGINT gets it: asyncio's runner cancels its task, where a KeyboardInterrupt raised amid a destructor would
    be lost. Call it in the main thread.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
