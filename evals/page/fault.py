"""What can go wrong at the page, as the status and the words of an answer."""

import errno
import sqlite3

from evals.page.request import RefusedError
from evals.page.sign_in import SignInError
from labels.errors import LeaseError

STATUS: dict[type[Exception], int] = {SignInError: 401, RefusedError: 403, LeaseError: 409}
FAULTS = (*STATUS, OSError, sqlite3.OperationalError)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WHY = {507: "the server's disk is full", 503: "the file of verdicts can't be used just now"}


def status_of(error: Exception) -> int:
    """The HTTP status of one of FAULTS: 507 where the disk is full, 503 where the file can't be used."""
    if isinstance(error, OSError):
        return 507 if error.errno in NO_ROOM else 503
    if isinstance(error, sqlite3.OperationalError):
        return 503
    return STATUS[type(error)]


def words_of(error: Exception, method: str) -> str:
    """What the page says of it, to a form sent (POST) or a page asked for."""
    why = WHY.get(status_of(error))
    if why is None:
        return str(error)
    if method == "POST":
        return f"Not saved: {why}. What you typed is kept; try again in a while."
    return f"No query can be given out: {why}. Load the page again in a while; nothing that was saved is lost."
