"""The review queue: who is asked what next, in the same SQLite file as the verdicts.

A label is leased to a reviewer while they look at it, so that two people share the queue without colliding. The lease's
id becomes the verdict's: whatever arrives twice is the same verdict. Some labels want a second reviewer (the overlap
that agreement is measured on), and where two differ a third decides. Every step is one durable transaction, in whose
time the length of the queue plays no part.
"""

import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any
from uuid import uuid4

from evals.item import Item, item_of
from labels.errors import LeaseError
from labels.records import Decision, Verdict, now
from labels.verdicts import Verdicts, add_verdict, verdict_of

TAKEN_BACK = "you took this answer back; nothing was saved. Answer the query as it is shown now"
LEASE_SECONDS = 15 * 60.0
RECENT = 50
USUAL_SECONDS = 12.0
"""A verdict's, before a reviewer gave any."""

TABLES = (
    """CREATE TABLE IF NOT EXISTS items (
        identity TEXT PRIMARY KEY, part TEXT NOT NULL, place INTEGER NOT NULL, open INTEGER NOT NULL,
        base INTEGER NOT NULL, wanted INTEGER NOT NULL, done INTEGER NOT NULL, first TEXT, night TEXT NOT NULL,
        item TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE IF NOT EXISTS leases (
        id TEXT PRIMARY KEY, identity TEXT NOT NULL, reviewer TEXT NOT NULL, since REAL NOT NULL, ends REAL NOT NULL
    ) STRICT""",
    "CREATE TABLE IF NOT EXISTS skips (identity TEXT, reviewer TEXT, PRIMARY KEY (identity, reviewer)) STRICT",
    "CREATE TABLE IF NOT EXISTS progress (part TEXT PRIMARY KEY, wanted INTEGER, done INTEGER) STRICT",
    "CREATE INDEX IF NOT EXISTS lease_of ON leases (identity)",
    "CREATE INDEX IF NOT EXISTS held_by ON leases (reviewer, since)",
    "CREATE INDEX IF NOT EXISTS first_opinion ON items (place) WHERE open = 1 AND done = 0",
    "CREATE INDEX IF NOT EXISTS second_opinion ON items (first, place) WHERE open = 1 AND done = 1 AND wanted = 2",
    "CREATE INDEX IF NOT EXISTS third_opinion ON items (place) WHERE open = 1 AND done = 2 AND wanted = 3",
)
# A second opinion is asked before a new first one, or agreement would be known at the queue's end only. `first <> ?`
# would walk over all that wait for somebody else than this reviewer; two ranges do not.
CHOICES = (
    ("done = 1 AND wanted = 2 AND first < :reviewer", "first, place"),
    ("done = 1 AND wanted = 2 AND first > :reviewer", "first, place"),
    ("done = 2 AND wanted = 3", "place"),
    ("done = 0", "place"),
)
LAST = """SELECT verdicts.* FROM verdicts JOIN items USING (identity)
    WHERE reviewer = ? AND withdrawn IS NULL AND NOT simulated ORDER BY created DESC LIMIT 1"""
FREE = """NOT EXISTS (SELECT 1 FROM leases l WHERE l.identity = items.identity AND l.ends > :moment)
    AND NOT EXISTS (SELECT 1 FROM skips s WHERE s.identity = items.identity AND s.reviewer = :reviewer)
    AND NOT EXISTS (SELECT 1 FROM verdicts v
                    WHERE v.identity = items.identity AND v.reviewer = :reviewer AND v.withdrawn IS NULL)"""


@dataclass(frozen=True, slots=True)
class Given:
    """A label leased to a reviewer: the lease's id, and their earlier verdict where they took one back."""

    lease: str
    item: Item
    before: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Verdicts wanted and given, by part; the reviewer's own today, and their pace (median seconds of the last ones)."""

    wanted: dict[str, int]
    done: dict[str, int]
    mine_today: int
    seconds_each: float

    @property
    def left(self) -> int:
        """Verdicts still wanted."""
        return sum(self.wanted.values()) - sum(self.done.values())

    @property
    def minutes_left(self) -> float:
        """What is left, for one reviewer at this pace."""
        return self.left * self.seconds_each / 60


class ReviewQueue:
    """The queue beside the verdicts. Every method is one transaction; all raise OSError where the disk is full.

    `on_change` is called with the queries of verdicts that were written or taken back, once that is durable. It may not raise.
    """

    def __init__(
        self,
        verdicts: Verdicts,
        lease_seconds: float = LEASE_SECONDS,
        on_change: Callable[[Collection[str]], None] = lambda queries: None,
    ) -> None:
        self.verdicts, self.lease_seconds, self.on_change = verdicts, lease_seconds, on_change
        with verdicts.transaction() as con:
            for statement in TABLES:
                con.execute(statement)

    def fill(self, items: Sequence[Item], night: str) -> None:
        """Make `items` the queue, in this order; what was in it before and is not among them is closed.

        Verdicts and leases stay: a label that people judged before is not asked again, and whoever looks at a closed
        one can still answer.
        """
        with self.verdicts.transaction() as con:
            con.execute("UPDATE items SET open = 0")
            con.executemany(
                """INSERT INTO items (identity, part, place, open, base, wanted, done, night, item)
                   VALUES (?, ?, ?, 1, ?, ?, 0, ?, ?)
                   ON CONFLICT (identity) DO UPDATE SET part = excluded.part, place = excluded.place, open = 1,
                       base = excluded.base, wanted = excluded.wanted, done = 0, night = excluded.night, item = excluded.item""",
                [
                    (one.label.identity, one.part, place, 2 if one.overlap else 1, 2 if one.overlap else 1, night,
                     one.to_json())
                    for place, one in enumerate(items)
                ],
            )  # fmt: skip
            for (identity,) in con.execute(
                "SELECT DISTINCT identity FROM items JOIN verdicts USING (identity) WHERE open = 1"
            ).fetchall():
                _count(con, identity)
            _count_all(con)

    def take(self, reviewer: str, count: int = 2) -> list[Given]:
        """What the reviewer holds, filled up to `count`: the first is to be shown, the others can be fetched ahead.

        Fewer where nothing more is left for them. Their leases begin anew.
        """
        moment = time.time()
        with self.verdicts.transaction() as con:
            held = _held(con, reviewer)[:count]
            con.execute("UPDATE leases SET ends = ? WHERE reviewer = ?", (moment + self.lease_seconds, reviewer))
            while len(held) < count and (identity := _next(con, reviewer, moment)):
                con.execute("DELETE FROM leases WHERE identity = ?", (identity,))  # an ended one
                held.append(self._lease(con, identity, reviewer, moment))
                moment += 1e-6  # so that they keep their order
        return held

    def held(self, reviewer: str, lease: str) -> Item | None:
        """The label of a lease that the reviewer holds; None where they do not."""
        sql = "SELECT item FROM items JOIN leases USING (identity) WHERE leases.id = ? AND reviewer = ?"
        rows = self.verdicts.read(sql, (lease, reviewer))
        return item_of(rows[0]["item"]) if rows else None

    def submit(
        self, reviewer: str, lease: str, decision: Decision, value: str | None, note: str = "", seconds: float = 0.0
    ) -> Verdict:
        """Write what the reviewer said of the label they hold; durable when this returns. Sent again, it is the same.

        Raises LeaseError where they do not hold it, or took back what they said.
        """
        with self.verdicts.transaction() as con:
            if said := con.execute(
                "SELECT * FROM verdicts WHERE id = ? AND reviewer = ?", (lease, reviewer)
            ).fetchone():
                if said["withdrawn"]:
                    raise LeaseError(TAKEN_BACK)
                return verdict_of(said)
            item = _item(con, _lease_of(con, reviewer, lease))
            label = item.label
            verdict = Verdict(
                identity=label.identity,
                query=label.query,
                reviewer=reviewer,
                decision=decision,
                value=value,
                draft=label.value,
                part=item.part,
                note=note,
                seconds=round(seconds, 2),
                task=label.task,
                task_version=label.task_version,
                id=lease,
            )
            add_verdict(con, verdict)
            con.execute("DELETE FROM leases WHERE id = ?", (lease,))
            _count(con, label.identity)
        self.on_change([verdict.query])
        return verdict

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Write verdicts that were given elsewhere; the queue counts them as its own. Known ones (by id) stay as they are."""
        with self.verdicts.transaction() as con:
            for verdict in verdicts:
                add_verdict(con, verdict)
            for identity in {verdict.identity for verdict in verdicts}:
                if con.execute("SELECT 1 FROM items WHERE identity = ?", (identity,)).fetchone():
                    _count(con, identity)
        self.on_change({verdict.query for verdict in verdicts})

    def last(self, reviewer: str) -> Verdict | None:
        """The reviewer's last verdict, which `undo` would take back; None where they gave none."""
        rows = self.verdicts.read(LAST, (reviewer,))
        return verdict_of(rows[0]) if rows else None

    def undo(self, reviewer: str, meant: str | None = None) -> Given | None:
        """Take the reviewer's last verdict back and give them its label again; None where they gave none.

        `meant` is the id of the verdict that they see as the last: sent twice, it takes one back. Another stays.
        """
        moment = time.time()
        with self.verdicts.transaction() as con:
            last = con.execute(LAST, (reviewer,)).fetchone()
            if last is None or meant not in (None, last["id"]):
                return None
            con.execute("UPDATE verdicts SET withdrawn = ? WHERE id = ?", (now(), last["id"]))
            _count(con, last["identity"])
            first = con.execute("SELECT min(since) FROM leases WHERE reviewer = ?", (reviewer,)).fetchone()[0]
            given = self._lease(con, last["identity"], reviewer, moment, since=(first or moment) - 1)
        self.on_change([last["query"]])
        return replace(given, before=verdict_of(last))

    def skip(self, reviewer: str, lease: str) -> None:
        """Leave the label to others, or to the reviewer's own end of the queue. Raises LeaseError as `submit`."""
        with self.verdicts.transaction() as con:
            identity = _lease_of(con, reviewer, lease)
            con.execute("DELETE FROM leases WHERE id = ?", (lease,))
            con.execute("INSERT OR IGNORE INTO skips VALUES (?, ?)", (identity, reviewer))

    def leave(self, reviewer: str) -> None:
        """Give back all that the reviewer holds."""
        with self.verdicts.transaction() as con:
            con.execute("DELETE FROM leases WHERE reviewer = ?", (reviewer,))

    def progress(self, reviewer: str | None = None) -> Progress:
        """How far the queue and the reviewer are; without one, how far all of them."""
        counts = self.verdicts.read("SELECT * FROM progress")
        who, values = ("reviewer = ?", (reviewer,)) if reviewer else ("NOT simulated", ())
        mine = f"FROM verdicts WHERE {who} AND withdrawn IS NULL"
        today = self.verdicts.read(f"SELECT count(*) {mine} AND created >= ?", (*values, now()[:10]))[0][0]
        times = self.verdicts.read(f"SELECT seconds {mine} ORDER BY created DESC LIMIT {RECENT}", values)
        return Progress(
            wanted={row["part"]: row["wanted"] for row in counts},
            done={row["part"]: row["done"] for row in counts},
            mine_today=today,
            seconds_each=median([row["seconds"] for row in times if row["seconds"]] or [USUAL_SECONDS]),
        )

    def recent(self, reviewer: str) -> list[tuple[Verdict, bool]]:
        """The reviewer's last verdicts, the latest first, and whether the label has left the sample since: it was
        made anew, or its time was up.
        """
        rows = self.verdicts.read(
            f"""SELECT verdicts.*, coalesce(open, 0) AS open FROM verdicts LEFT JOIN items USING (identity)
                WHERE reviewer = ? AND withdrawn IS NULL ORDER BY created DESC LIMIT {RECENT}""",
            (reviewer,),
        )
        return [(verdict_of(row), not row["open"]) for row in rows]

    def items(self, closed: bool = False) -> list[Item]:
        """All that is asked of people now, answered or not, in the queue's order; with `closed`, what ever was asked."""
        where = "" if closed else "WHERE open = 1"
        return [item_of(row["item"]) for row in self.verdicts.read(f"SELECT item FROM items {where} ORDER BY place")]

    def _lease(
        self, con: sqlite3.Connection, identity: str, reviewer: str, moment: float, since: float | None = None
    ) -> Given:
        lease = uuid4().hex
        begun = moment if since is None else since
        values = (lease, identity, reviewer, begun, moment + self.lease_seconds)
        con.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?)", values)
        return Given(lease, _item(con, identity))


def _held(con: sqlite3.Connection, reviewer: str) -> list[Given]:
    rows = con.execute("SELECT id, identity FROM leases WHERE reviewer = ? ORDER BY since", (reviewer,)).fetchall()
    return [Given(row["id"], _item(con, row["identity"]), _taken_back(con, row["identity"], reviewer)) for row in rows]


def _taken_back(con: sqlite3.Connection, identity: str, reviewer: str) -> Verdict | None:
    row = con.execute(
        """SELECT * FROM verdicts WHERE identity = ? AND reviewer = ? AND withdrawn IS NOT NULL
           ORDER BY withdrawn DESC LIMIT 1""",
        (identity, reviewer),
    ).fetchone()
    return verdict_of(row) if row else None


def _next(con: sqlite3.Connection, reviewer: str, moment: float) -> str | None:
    """The label to ask this reviewer about next; what they skipped comes back when nothing else is left."""
    values: dict[str, Any] = {"reviewer": reviewer, "moment": moment}
    for _ in range(2):
        for which, order in CHOICES:
            sql = f"SELECT identity FROM items WHERE open = 1 AND {which} AND {FREE} ORDER BY {order} LIMIT 1"
            if row := con.execute(sql, values).fetchone():
                return str(row["identity"])
        if not con.execute("DELETE FROM skips WHERE reviewer = :reviewer", values).rowcount:
            break
    return None


def _item(con: sqlite3.Connection, identity: str) -> Item:
    return item_of(con.execute("SELECT item FROM items WHERE identity = ?", (identity,)).fetchone()["item"])


def _lease_of(con: sqlite3.Connection, reviewer: str, lease: str) -> str:
    """The label that the lease is for. Raises LeaseError where it is not the reviewer's."""
    row = con.execute("SELECT identity FROM leases WHERE id = ? AND reviewer = ?", (lease, reviewer)).fetchone()
    if row is None:
        raise LeaseError(
            "this query is not yours any more: you were away for long and it went to another reviewer, or you answered "
            "it in another window. Nothing was saved for it; go on with the next one"
        )
    return str(row["identity"])


def _count(con: sqlite3.Connection, identity: str) -> None:
    """Bring the label's counts, and those of its part, in line with the verdicts that people gave on it."""
    said = con.execute(
        """SELECT reviewer, value FROM verdicts
           WHERE identity = ? AND withdrawn IS NULL AND NOT simulated ORDER BY created""",
        (identity,),
    ).fetchall()
    by_reviewer = {row["reviewer"]: row["value"] for row in said}
    row = con.execute("SELECT * FROM items WHERE identity = ?", (identity,)).fetchone()
    values = list(by_reviewer.values())
    disputed = len(values) >= 2 and max(map(values.count, values)) < 2
    wanted, done = max(row["base"], 3 if disputed else 1), len(values)
    first = next(iter(by_reviewer), None)
    con.execute("UPDATE items SET wanted = ?, done = ?, first = ? WHERE identity = ?", (wanted, done, first, identity))
    if row["open"]:
        more = (wanted - row["wanted"], min(done, wanted) - min(row["done"], row["wanted"]), row["part"])
        con.execute("UPDATE progress SET wanted = wanted + ?, done = done + ? WHERE part = ?", more)


def _count_all(con: sqlite3.Connection) -> None:
    con.execute("DELETE FROM progress")
    con.execute(
        "INSERT INTO progress SELECT part, sum(wanted), sum(min(done, wanted)) FROM items WHERE open = 1 GROUP BY part"
    )
