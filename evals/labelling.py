"""The report's sections on labelling, in words: the log, retrieval, the teacher's work.

Every key of the summary may be missing or None: a night can end anywhere, and an engine need not tell everything.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.plots import duration
from labels.normalise import MAX_QUERY_CHARS
from labels.records import Label

DROPPED = {
    "dropped_miscounted": "counted wrongly: not above 0, or beyond all reason",
    "dropped_empty": "empty",
    "dropped_long": f"longer than {MAX_QUERY_CHARS} characters",
    "dropped_personal": "nothing but personal data",
    "dropped_rare": "asked in too few different sessions",
}
BANDS = ("head", "torso", "tail")
Row = tuple[str, str]


@dataclass(frozen=True)
class Log:
    """The log's rows: all of them, those kept, and for each reason how many were dropped; and what became of them.

    `missed` says what lookups added.
    """

    rows: int
    kept: int
    dropped: list[tuple[str, int]]
    then: str
    missed: str

    @property
    def lost(self) -> int:
        """The rows dropped."""
        return self.rows - self.kept

    @property
    def adds_up(self) -> bool:
        """Whether rows = kept + dropped is possible at all."""
        return self.kept >= 0


def log_of(summary: Mapping[str, Any]) -> Log | None:
    """What the night's log held; None where it was not counted."""
    log = summary.get("log") or {}
    rows = log.get("rows")
    if rows is None:
        return None
    dropped = [
        (DROPPED.get(name, name.removeprefix("dropped_").replace("_", " ")), int(count or 0))
        for name, count in log.items()
        if name.startswith("dropped_")
    ]
    then = []
    if log.get("queries") is not None:
        bands = [f"{log[band]:,} {band}" for band in BANDS if log.get(band) is not None]
        then.append(f"{log['queries']:,} distinct queries" + (f": {', '.join(bands)}" if bands else ""))
    if log.get("masked"):
        then.append(f"in {log['masked']:,} of the rows kept, personal data was masked before anything was stored")
    return Log(rows, rows - sum(count for _, count in dropped), dropped, _sentence(then), _misses(log))


def _misses(log: Mapping[str, Any]) -> str:
    """What became of the queries that lookups had no answer in the cache for; empty where none was missed."""
    if not log.get("misses"):
        return ""
    dropped = sum(int(count or 0) for name, count in log.items() if name.startswith("misses_dropped_"))
    told = [
        f"lookups missed {log['misses']:,} times",
        f"{log.get('misses_taken', 0):,} of these came in as {log.get('misses_queries', 0):,} queries that the log has not got",
        f"{log['misses_in_log']:,} were of queries in the log already" if log.get("misses_in_log") else "",
        f"{dropped:,} were dropped" if dropped else "",
        f"{log['misses_unreadable']:,} entries could not be read" if log.get("misses_unreadable") else "",
    ]
    return _sentence(list(filter(None, told)))


def teacher_rows(summary: Mapping[str, Any]) -> list[Row]:
    """What the teacher's labels took: name and words, row by row; empty where nothing was counted."""
    tokens, asked, seconds = summary.get("tokens"), summary.get("asked_teacher"), summary.get("label_seconds")
    if not tokens or asked is None:
        return []
    rows = [("Queries asked", f"{asked:,}")]
    if asked and seconds:
        rows.append(("Time", f"{duration(seconds)}, {asked / seconds:,.0f} queries a second"))
    cached = tokens.get("cached") or 0
    share = f", {cached:,} of them ({cached / tokens['in']:.1%}) found in the prefix cache" if tokens["in"] else ""
    rows.append(("Tokens in", f"{tokens['in']:,}{share}"))
    rows.append(("Tokens out", f"{tokens['out']:,}"))
    hit_rate = summary.get("prefix_cache_hit_rate")
    told = "not told by the engine" if hit_rate is None else f"{hit_rate:.1%}, by the engine's own count"
    rows.append(("Prefix cache hit rate", told))
    rows.append(("Cost", _cost(summary.get("cost"))))
    if (abstained := summary.get("abstained")) is not None:
        rows.append(("Abstained", f"{abstained:,} accepted labels find nothing in the query, which is an answer"))
    return rows


def flip_words(flips: Mapping[str, Any] | None) -> str:
    """The flip rate in one sentence."""
    if not flips or not flips.get("asked"):
        return "No label was asked for again, so how often the teacher changes its answer is not known."
    interval = flips.get("interval")
    sure = f", 95% interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f}%" if interval else ""
    return (
        f"Flip rate {flips['flipped'] / flips['asked']:.1%}{sure}: of {flips['asked']:,} labels asked for again, with the "
        f"same inputs, {flips['flipped']:,} came out otherwise."
    )


def rejected_words(rejected: Sequence[Label]) -> str:
    """How many labels each guardrail turned down, the busiest first; empty where it is not known."""
    counts = Counter(label.guardrail for label in rejected if label.guardrail)
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


def _cost(cost: Mapping[str, Any] | None) -> str:
    if not cost:
        return "not reckoned: the profile gives no price"
    each, currency = cost.get("per_accepted_label"), cost.get("currency", "")
    words = f"{cost['total']:,.2f} {currency}"
    words += f", {each:.2g} {currency} an accepted label" if each is not None else ""
    return words + (f" ({cost['basis']})" if cost.get("basis") else "")


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""
