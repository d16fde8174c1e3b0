"""The service's log: a JSON object a line on standard error. No query's text is in it unless it was asked for."""

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

LOGGER = logging.getLogger("stillhouse.serve")
ROOT = Path(__file__).parents[1]
_NOTHING: Mapping[str, object] = {}


def note(
    event: str, level: int = logging.INFO, error: BaseException | None = None, told: Mapping[str, object] = _NOTHING
) -> None:
    """Log an event and what belongs to it.

    Of an error nobody foresaw only its type and its places in the code are told: its words may quote a query.
    """
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, event, extra={"told": {**told}}, exc_info=error)


@contextmanager
def json_lines() -> Iterator[None]:
    """In the block, our events and uvicorn's go to standard error as JSON lines, and nowhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine())
    # uvicorn warns of each request that is none: whoever scans ports could fill the disk
    loggers = [(LOGGER, logging.INFO), (logging.getLogger("uvicorn.error"), logging.ERROR)]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger, _ in loggers]
    for logger, level in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, handlers, old, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(old)


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage().strip(),
            "pid": os.getpid(),
            **getattr(record, "told", {}),
        }
        if record.exc_info and (error := record.exc_info[1]):
            told |= {"error": type(error).__qualname__, "at": _places(error)}
        return json.dumps(told, default=str)


def _places(error: BaseException) -> list[str]:
    """Where in the code it was raised, the innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [f"{frame.filename.removeprefix(f'{ROOT}/')}:{frame.lineno} {frame.name}" for frame in frames]
