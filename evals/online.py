"""What the days of lookups say: whether the head found what was forecast, and what drifts. Plain rules, each with a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.intervals import wilson

SOURCES = ("cache", "tail-cache", "student", "none")
MARGIN = 0.01
"""How far under the forecast a hit rate must be, beside chance: one answer's hit is not quite independent of the next one's
(a trend, a robot, a shopper's second page), so that the interval alone is too narrow on many lookups."""
BEFORE, LEAST_BEFORE = 7, 3  # days that the last one is held against: a week has them all; the fewest


@dataclass(frozen=True)
class Drift:
    """A figure (a share) of the last day and its mean in the days before, whether it drifted, and that in a sentence."""

    name: str
    last: float
    before: float
    drifted: bool
    message: str


@dataclass(frozen=True)
class Rule:
    """How a figure drifts: its name in words, which way is bad, by how much from the mean before, and what to do."""

    name: str
    falling: bool
    least: float
    todo: str


RULES = {
    "hit_rate": Rule(
        "Hit rate of the head", falling=True, least=0.02, todo="give the night a newer log, or raise cache.head_share"
    ),
    # The counts of different queries are a HyperLogLog's: this share of theirs is off by 1 point (one standard error).
    "new_share": Rule(
        "New queries among those missed",
        falling=False,
        least=0.05,
        todo="see labels of the newest queries: a season, a campaign or a robot asks what the log has not got",
    ),
    "none_share": Rule(
        "Misses that got no answer at all",
        falling=False,
        least=0.02,
        todo="see by /metrics whether the student is slow, down or its answers are turned down",
    ),
}


def figures(day: Mapping[str, Any]) -> dict[str, float | None]:
    """A day's shares by the names of RULES, None where there was nothing to have a share of.

    `day` has `answers` by source, `missed` and `new` queries.
    """
    answers = {source: int(day["answers"].get(source, 0)) for source in SOURCES}
    total, hits = sum(answers.values()), answers["cache"]
    new, missed = day.get("new"), day.get("missed")
    return {
        "hit_rate": hits / total if total else None,
        "new_share": min(new / missed, 1.0) if new is not None and missed else None,
        "none_share": answers["none"] / (total - hits) if total > hits else None,
    }


def shortfall(day: Mapping[str, Any], forecast: float) -> str | None:
    """The warning where a day's hit rate fell under `forecast` (0 to 1) by more than chance and MARGIN; else None.

    Chance is a 95% interval of a binomial share (Wilson), the share being of answers, not of queries.
    """
    total, hits = sum(day["answers"].values()), day["answers"].get("cache", 0)
    low, high = wilson(hits, total)
    if not total or high >= forecast or hits / total > forecast - MARGIN:
        return None
    return (
        f"On {day['day']} the head answered {hits / total:.1%} of {total:,} lookups (95% interval {low:.1%} to {high:.1%}), "
        f"under the {forecast:.1%} that its release forecast: shoppers ask what the log does not show. Give the night a "
        "newer log, or raise cache.head_share."
    )


def drifts(days: Sequence[Mapping[str, Any]]) -> list[Drift]:
    """Each figure of the last day beside the days before, where these are enough.

    It drifted where it is worse than on every one of the last BEFORE days, and than their mean by the rule's least.
    """
    found = []
    told = [figures(day) for day in days[-BEFORE - 1 :]]
    for name, rule in RULES.items():
        *before, last = [one[name] for one in told] or [None]
        known = [value for value in before if value is not None]
        if last is None or len(known) < LEAST_BEFORE:
            continue
        mean = sum(known) / len(known)
        worst = min(known) if rule.falling else max(known)
        drifted = last < min(worst, mean - rule.least) if rule.falling else last > max(worst, mean + rule.least)
        message = f"{rule.name}: {last:.1%} on {days[-1]['day']}, {mean:.1%} on average in the {len(known)} days before"
        if drifted:
            message += f". It is {'falling' if rule.falling else 'rising'}: {rule.todo}"
        found.append(Drift(name, last, mean, drifted, message + "."))
    return found
