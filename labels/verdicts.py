"""The verdicts on disk: one SQLite file, in which what a person said is durable before the page says so (invariant 5).

The review queue (evals/queue.py) keeps its own tables in the same file, so that a verdict and what it does to the queue
are one transaction.
"""

import errno
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from labels.records import Verdict

COLUMNS = tuple(field.name for field in fields(Verdict))
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS verdicts (
        identity TEXT NOT NULL, query TEXT NOT NULL, reviewer TEXT NOT NULL, decision TEXT NOT NULL, value TEXT,
        simulated INTEGER NOT NULL, draft TEXT, part TEXT NOT NULL, note TEXT NOT NULL, seconds REAL NOT NULL,
        task TEXT NOT NULL, task_version TEXT NOT NULL, id TEXT PRIMARY KEY, created TEXT NOT NULL, withdrawn TEXT
    ) STRICT""",
    "CREATE INDEX IF NOT EXISTS by_label ON verdicts (identity, reviewer) WHERE withdrawn IS NULL",
    "CREATE INDEX IF NOT EXISTS taken_back ON verdicts (identity, reviewer, withdrawn) WHERE withdrawn IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS by_query ON verdicts (query) WHERE withdrawn IS NULL",
    "CREATE INDEX IF NOT EXISTS by_reviewer ON verdicts (reviewer, created) WHERE withdrawn IS NULL",
)
WAIT_SECONDS = 30.0
# The last two: no room even for the file that readers and writers share.
NO_ROOM = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
)


class Verdicts:
    """The verdicts in the file `path`, which is made at the first write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction: durable (fsynced) when the block ends well, undone when it does not.

        Writers of all processes take turns; readers never wait. Raises OSError where the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._kept is None:  # the last connection that is closed writes the whole log back, which takes 5 ms
            with full_disk_is_an_os_error(self.path):
                kept = self._connect()
                for statement in SCHEMA:
                    kept.execute(statement)
                self._kept = kept
        with full_disk_is_an_os_error(self.path), closing(self._connect()) as con:
            con.execute("BEGIN IMMEDIATE")
            try:
                yield con
                con.execute("COMMIT")
            finally:
                if con.in_transaction:
                    con.execute("ROLLBACK")

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows of a query; none where nothing was ever written."""
        if not self.path.exists():
            return []
        with full_disk_is_an_os_error(self.path), closing(self._connect()) as con:
            try:
                return con.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # made by a writer that is about to make its tables
                    return []
                raise

    def add(self, verdicts: Iterable[Verdict]) -> None:
        """Write verdicts; durable when this returns. One that is there already (by its id) stays as it is."""
        with self.transaction() as con:
            for verdict in verdicts:
                add_verdict(con, verdict)

    def all(self) -> list[Verdict]:
        """Every verdict that was not withdrawn, oldest first."""
        rows = self.read(f"SELECT {', '.join(COLUMNS)} FROM verdicts WHERE withdrawn IS NULL ORDER BY created, rowid")
        return [verdict_of(row) for row in rows]

    def settled(self) -> list[Verdict]:
        """One verdict a label, oldest first: see `settle`."""
        return settle(self.all())

    def _connect(self) -> sqlite3.Connection:
        con = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
        con.row_factory = sqlite3.Row
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("PRAGMA synchronous = FULL")  # WAL alone would fsync at checkpoints only
        return con


def add_verdict(con: sqlite3.Connection, verdict: Verdict) -> None:
    """Write one verdict inside a transaction; one with its id stays as it is."""
    marks = ", ".join("?" * len(COLUMNS))
    con.execute(
        f"INSERT INTO verdicts ({', '.join(COLUMNS)}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING",
        [getattr(verdict, name) for name in COLUMNS],
    )


def verdict_of(row: sqlite3.Row) -> Verdict:
    """The verdict in a row of the table."""
    return Verdict(**{name: row[name] for name in COLUMNS} | {"simulated": bool(row["simulated"])})


def settle(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """One verdict a label, oldest first, from all of them in the order they were said.

    A reviewer's later verdict replaces their earlier one. Where reviewers differ the answer that most of them gave
    counts, and of equally many the latest; a person's outranks a simulated one.
    """
    by_label: dict[str, dict[str, Verdict]] = {}
    for verdict in verdicts:
        said = by_label.setdefault(verdict.identity, {})
        said.pop(verdict.reviewer, None)
        said[verdict.reviewer] = verdict
    return sorted((_settled(list(said.values())) for said in by_label.values()), key=lambda one: one.created)


def _settled(said: list[Verdict]) -> Verdict:
    people = [verdict for verdict in said if not verdict.simulated] or said
    votes = Counter(verdict.value for verdict in people)
    return max(enumerate(people), key=lambda one: (votes[one[1].value], one[0]))[1]


@contextmanager
def full_disk_is_an_os_error(path: Path) -> Iterator[None]:
    """What SQLite says of a full disk, as the OSError that every other write raises."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in NO_ROOM:
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise
