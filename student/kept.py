"""What was kept against the whole: by difficulty and by band, with a warning where the hard part is gone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from labels.records import Band
from student.rows import Row
from student.selection import Reason, Selection, chance

FIFTHS = 5
LEAST_RATE = 0.5
"""The rate, relative to that of all labels, under which the hardest fifth counts as filtered away. Guardrails turn down
hard labels first, and rightly: a rate of two thirds is what a good teacher's filters leave."""


@dataclass(frozen=True)
class Fifth:
    """A fifth of the labels by difficulty (0 to 1, from `low` to `high`): how many, and how many of them train."""

    low: float
    high: float
    whole: int
    kept: int


@dataclass(frozen=True)
class InBand:
    """The labels of one band: how many, and how many of them train."""

    band: Band
    whole: int
    kept: int


@dataclass(frozen=True)
class Kept:
    """The kept set against the whole: all labels accepted or rejected that neither measure nor are near what does."""

    by_difficulty: list[Fifth] = field(default_factory=list)
    by_band: list[InBand] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def compare(rows: Sequence[Row], reasons: Sequence[Reason | None], selection: Selection) -> Kept:
    """The comparison over the `rows` of the whole; `reasons` says why each does not train, None where it does."""
    if not rows:
        return Kept()
    order = sorted(range(len(rows)), key=lambda at: (rows[at].difficulty, chance(0, f"tie {rows[at].query}")))
    parts = [part.tolist() for part in np.array_split(np.array(order), FIFTHS) if len(part)]
    fifths = [
        Fifth(rows[part[0]].difficulty, rows[part[-1]].difficulty, len(part), sum(reasons[at] is None for at in part))
        for part in parts
    ]
    whole = Counter(row.band for row in rows)
    kept = Counter(row.band for row, reason in zip(rows, reasons, strict=True) if reason is None)
    bands = [InBand(band, whole[band], kept[band]) for band in get_args(Band) if whole[band]]
    lost = Counter(reason for at in parts[-1] if (reason := reasons[at]))
    return Kept(fifths, bands, _warnings(fifths, lost, selection))


def _warnings(fifths: Sequence[Fifth], lost: Counter[Reason], selection: Selection) -> list[str]:
    """Filtering removes the hard prompts first (Llama Team 2024, "The Llama 3 Herd of Models", §4.2)."""
    hardest, whole, kept = fifths[-1], sum(one.whole for one in fifths), sum(one.kept for one in fifths)
    if hardest.kept / hardest.whole >= LEAST_RATE * kept / whole:
        return []
    advice = {
        "unsure": f"lower student.data.min_confidence ({selection.min_confidence:g}), or have them verified",
        "rejected": "`stillhouse labels` shows which guardrail turned them down",
        "collapsed": f"raise student.data.near ({selection.near:g})",
        "not_drawn": f"lower student.data.temper ({selection.temper:g}) or raise student.data.rows ({selection.rows})",
    }
    reasons = lost.most_common()
    counts = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons)
    return [
        f"the hard part is missing: of the hardest fifth of the labels (difficulty {hardest.low:.2f} to "
        f"{hardest.high:.2f}) {hardest.kept:,} of {hardest.whole:,} train ({hardest.kept / hardest.whole:.0%}), of all "
        f"labels {kept / whole:.0%}; left out of it: {counts}. {advice[reasons[0][0]]}"
    ]
