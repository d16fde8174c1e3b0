"""The judgement: what share of the teacher's accepted labels is right, by people's verdicts, and how sure that is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evals.intervals import Design, Estimate, designed, ratio, wilson
from evals.ppi import prediction_powered
from evals.sample import BANDS, Audit, Sampled, Stratum, confidence_of
from labels.records import Verdict
from labels.task import Task

RESAMPLES = 1_000
SEED = 0
MOST_VERDICTS = 10_000_000
"""More than people will ever give: a threshold this far away is as good as out of reach."""

Floats = NDArray[np.float64]
Group = list[Stratum]
"""Strata judged as one."""


@dataclass(frozen=True)
class FieldEstimate:
    """How good a field of the labels is: precision (of the values it found), recall (of those it should have), F1."""

    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True)
class Judgement:
    """The share of accepted labels that are right in every field, every label weighing alike ("by query"), 0 to 1.

    `low` and `high` are its 95% interval, `verdicts` how many it rests on, `effective` how many plain draws those are
    worth. `missing` names the bands that were sampled and of which nothing is decided: the estimate then says nothing of
    them. `undecided` counts the labels sampled that people could not tell, `unreviewed` those nobody has judged yet;
    `simulated`: whether any verdict came from no person. `by_traffic` weighs each label by its query's traffic: what a
    shopper sees. `by_stratum` is by band, `strata` by band and confidence, both by query. `fields` are the single
    fields', by query and by traffic. `ppi` is the first figure once more, helped by the confidence of all labels; None
    where they tell none.
    """

    precision: float
    low: float
    high: float
    verdicts: int
    undecided: int
    simulated: bool
    unreviewed: int
    missing: list[str]
    effective: float
    by_traffic: Estimate
    by_stratum: dict[str, Estimate]
    strata: dict[str, Estimate]
    fields: dict[str, FieldEstimate]
    fields_by_traffic: dict[str, FieldEstimate]
    ppi: Estimate | None

    def to_json(self) -> dict[str, object]:
        """A dict `json.dumps` takes."""
        return asdict(self)


class Pair(NamedTuple):
    """A label of the sample and the verdict that decides it."""

    sampled: Sampled
    verdict: Verdict


def judge(audit: Audit, verdicts: Sequence[Verdict], task: type[Task]) -> Judgement | None:
    """The judgement that settled verdicts (one a label) on the audit's labels allow; None where none decides anything.

    Verdicts on other labels are ignored. A label that people could not tell, or have not reviewed yet, is one that did
    not respond: see `weigh`. Raises InputError where a value breaks the task's schema.
    """
    said = {verdict.identity: verdict for verdict in verdicts}
    asked = [Pair(one, said[one.label.identity]) for one in audit.sampled if one.label.identity in said]
    decided = [pair for pair in asked if pair.verdict.decision != "cant_tell"]
    if not decided:
        return None
    respond = {pair.sampled.label.identity for pair in decided}
    groups = grouped(audit.strata, [pair.sampled.stratum for pair in decided])
    by_query, by_traffic = weigh(groups, audit.sampled, [one.label.identity in respond for one in audit.sampled])
    right = np.array([pair.verdict.decision == "right" for pair in decided], dtype=float)
    whole = ratio(right, np.ones_like(right), by_query)
    names = [" + ".join(stratum.name for stratum in group) for group in groups]
    bands = {pair.sampled.band for pair in decided}
    counts, resampled = item_counts(task, decided), resample(by_query)
    return Judgement(
        precision=whole.share,
        low=whole.low,
        high=whole.high,
        verdicts=len(decided),
        undecided=len(asked) - len(decided),
        simulated=any(pair.verdict.simulated for pair in asked),
        unreviewed=len(audit.sampled) - len(asked),
        missing=[band for band in BANDS if band in {one.band for one in audit.sampled} - bands],
        effective=whole.effective,
        by_traffic=ratio(right, np.ones_like(right), by_traffic),
        by_stratum=_parts(right, by_query, [pair.sampled.band for pair in decided], BANDS),
        strata=_parts(right, by_query, [names[at] for at in by_query.stratum], names),
        fields=field_estimates(task, counts, by_query, resampled),
        fields_by_traffic=field_estimates(task, counts, by_traffic, resampled),
        ppi=_ppi(audit, groups, decided, whole, by_query),
    )


def more_verdicts(judgement: Judgement, threshold: float) -> int | None:
    """How many verdicts more, at this rate, until the lower bound of the precision by query reaches `threshold`.

    0 where it does already; None where the precision itself is not above it: no number would do.
    """
    if judgement.low >= threshold:
        return 0
    if judgement.precision <= threshold:
        return None
    each = judgement.effective / judgement.verdicts

    def low(more: int) -> float:
        trials = (judgement.verdicts + more) * each
        return wilson(judgement.precision * trials, trials)[0]

    short, enough = 0, 1
    while low(enough) < threshold:
        if enough > MOST_VERDICTS:
            return None
        short, enough = enough, 2 * enough
    while enough - short > 1:
        middle = ceil((short + enough) / 2) if enough - short > 2 else short + 1
        short, enough = (middle, enough) if low(middle) < threshold else (short, middle)
    return enough


def grouped(strata: Sequence[Stratum], decided: Sequence[str]) -> list[Group]:
    """The strata, given that of each label decided: one with fewer than 2 (and not all it has) joins its nearest.

    Nearest is the next stratum of its band, the one with fewer labels of two; else the next of another band.
    """
    count = Counter(decided)
    groups = [[stratum] for stratum in strata]

    def poor(group: Group) -> bool:
        return sum(count[one.name] for one in group) < min(2, sum(one.labels for one in group))

    while len(groups) > 1 and (at := next((at for at, group in enumerate(groups) if poor(group)), None)) is not None:
        beside = [other for other in (at - 1, at + 1) if 0 <= other < len(groups)]
        first, last = sorted((at, min(beside, key=lambda other: _distance(groups[at], groups[other]))))
        groups[first : last + 1] = [groups[first] + groups[last]]
    return groups


def weigh(groups: Sequence[Group], sampled: Sequence[Sampled], decided: Sequence[bool]) -> tuple[Design, Design]:
    """The designs by query and by traffic of the labels sampled that are decided: see `designed`."""
    at = {stratum.name: place for place, group in enumerate(groups) for stratum in group}
    place = np.array([at[one.stratum] for one in sampled])
    chance = np.array([one.inclusion_probability for one in sampled])
    events = np.array([one.traffic for one in sampled])
    labels = np.array([sum(stratum.labels for stratum in group) for group in groups], dtype=float)
    traffic = np.array([sum(stratum.traffic for stratum in group) for group in groups])
    does = np.array(decided)
    return (
        designed(place, np.ones_like(events), chance, does, labels),
        designed(place, events, chance, does, traffic),
    )


def item_counts(task: type[Task], decided: Sequence[Pair]) -> dict[str, Floats]:
    """By field, a row a label: values that are right, values the label has, values it should have (`Task.items`).

    The label's answer is what the reviewer was shown.
    """
    counts = {name: np.zeros((len(decided), 3)) for name in task.model_fields}
    for row, (sampled, verdict) in enumerate(decided):
        given = task.parse(verdict.draft or sampled.label.value or "{}").items()
        truth = given if verdict.decision == "right" else task.parse(verdict.value or "{}").items()
        for column, items in enumerate((given & truth, given, truth)):
            for name, _ in items:
                counts[name][row, column] += 1
    return counts


def field_estimates(
    task: type[Task], counts: dict[str, Floats], design: Design, resampled: Floats
) -> dict[str, FieldEstimate]:
    """Each field's precision, recall and F1 from its `item_counts`. F1 = 2·right / (has + should have)."""
    fields = {}
    for name in task.model_fields:
        right, has, should = counts[name].T
        fields[name] = FieldEstimate(
            precision=ratio(right, has, design),
            recall=ratio(right, should, design),
            f1=_bootstrapped(2 * right, has + should, design, resampled),
        )
    return fields


def resample(design: Design) -> Floats:
    """RESAMPLES rows of what a stratified, rescaled bootstrap multiplies each weight by (Rao & Wu 1988, JASA 83:231-241).

    From each stratum's n verdicts n - 1 are drawn with replacement; the factor of one drawn m times is
    1 + √(1 - π)·(m·n / (n - 1) - 1), which has the variance of a sample without replacement and is never below 0.
    """
    rng = np.random.default_rng(SEED)
    factors = np.ones((RESAMPLES, len(design.stratum)))
    for stratum in np.unique(design.stratum):
        inside = np.flatnonzero(design.stratum == stratum)
        n = len(inside)
        if n > 1:
            drawn = rng.integers(n, size=(RESAMPLES, n - 1)) + n * np.arange(RESAMPLES)[:, None]
            times = np.bincount(drawn.ravel(), minlength=n * RESAMPLES).reshape(RESAMPLES, n)
            factors[:, inside] += np.sqrt(1 - design.chance[inside]) * (times * (n / (n - 1)) - 1)
    return factors


def _bootstrapped(above: Floats, below: Floats, design: Design, resampled: Floats) -> Estimate:
    """The share Σ w·above / Σ w·below, its interval Wilson's on the effective size that the bootstrap's variance gives.

    Where the bootstrap knows less doubt than `ratio` (all agree, say), the latter's interval stands.
    """
    linear = ratio(above, below, design)
    over, under = (resampled @ np.stack([design.weight * above, design.weight * below], axis=1)).T
    shares = over[under > 0] / under[under > 0]
    variance = float(shares.var()) if len(shares) else 0.0
    if variance <= 0 or not 0 < linear.share < 1:
        return linear
    effective = min(linear.share * (1 - linear.share) / variance, linear.effective)
    return Estimate(linear.share, *wilson(linear.share * effective, effective), linear.verdicts, effective)


def _parts(right: Floats, design: Design, part: Sequence[str], order: Sequence[str]) -> dict[str, Estimate]:
    """The estimate of each part that has verdicts, in this order."""
    parts = np.array(part)
    estimates = {}
    for name in order:
        inside = parts == name
        if inside.any():
            chosen = Design(design.stratum[inside], design.weight[inside], design.chance[inside], design.doubt)
            estimates[name] = ratio(right[inside], np.ones(int(inside.sum())), chosen)
    return estimates


def _ppi(
    audit: Audit, groups: Sequence[Group], decided: Sequence[Pair], whole: Estimate, design: Design
) -> Estimate | None:
    population = [np.array([sure for one in group for sure in audit.confidence.get(one.name, ())]) for group in groups]
    right = np.array([pair.verdict.decision == "right" for pair in decided], dtype=float)
    sure = np.array([confidence_of(pair.sampled.label) for pair in decided], dtype=float)
    return prediction_powered(whole, right, sure, population, design)


def _distance(group: Group, other: Group) -> tuple[bool, int]:
    same = {one.band for one in group} & {one.band for one in other}
    return not same, sum(one.labels for one in other)
