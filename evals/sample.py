"""The audit sample: which labels people are asked about, with known chances, so that the answer is unbiased.

The design serves two questions at once: how good is a label, and how good is what a shopper sees. The sample is a
panel: a label stays in for a window of days and then makes room for another, so that people are asked about few new
labels a day and the judgement rests on a whole window of their work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from math import ceil, sqrt
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from evals.intervals import Z95
from labels.records import Band, Label

BANDS: tuple[Band, ...] = get_args(Band)
CLASSES = ("least sure", "middling", "surest")
NO_CONFIDENCE = "no confidence"
SMALLEST_STRATUM = 20
"""Labels under which a class of confidence joins its neighbour: a few verdicts of so few say little by themselves."""
LEAST_EACH = 5
"""Labels every stratum gives where it can: two give a variance at all, five one that can be relied on a little."""
LEAST_SPREAD = 0.2
"""The least standard deviation of "is it right" that the allocation believes: 0.04 wrong, or a boastful teacher."""
DESIGN_EFFECT = 1.3
"""Labels of this design that tell as much of the precision by query as one of a plain sample: judging traffic as well
costs something. 1.0 to 1.3 on the populations of tests/evals/test_coverage.py."""
GOLDEN = (sqrt(5) - 1) / 2

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stratum:
    """All accepted labels of one band and class of confidence: how many, and their queries' traffic (events)."""

    name: str
    band: Band
    labels: int
    traffic: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """A label drawn for review, where it stands, the chance (above 0, at most 1) it had, and its query's traffic."""

    label: Label
    stratum: str
    band: Band
    inclusion_probability: float
    traffic: float


@dataclass(frozen=True, slots=True)
class Audit:
    """The sample, and the totals of what it was drawn from, which the weights are calibrated to.

    `confidence` holds, by stratum, the confidence (0 to 1) of every label of the population that has one.
    """

    sampled: list[Sampled]
    strata: list[Stratum]
    confidence: dict[str, list[float]] = field(default_factory=dict)


class Frame(NamedTuple):
    """The population as arrays, one entry a label: place of its stratum, traffic, chance, how many the stratum gives.

    `stratum` is sorted from 0 up, so that a stratum's labels stand together.
    """

    stratum: Places
    chance: Floats
    given: Places


def audit_sample(
    labels: Sequence[Label],
    traffic: Mapping[str, float],
    bands: Mapping[str, Band],
    size: int,
    seed: int,
    day: int = 0,
    window: int = 28,
) -> Audit:
    """Draw `size` accepted labels (all, where there are fewer) for `day`, each with a known chance.

    `traffic` (events, above 0) and `bands` are by query; `day` counts days from anywhere, `window` is how many of them
    a label stays. The strata are band by confidence (`_strata`), what each gives and a label's chance are `frame_of`'s,
    and the draw is `draw`'s by the permanent random numbers of `_numbers`. So the sample depends on nothing but its
    arguments, whatever the order of `labels`, and with one label more it changes little. Keep `seed` from night to
    night.

    Raises KeyError where a label's query has no band or traffic, ValueError on a negative size, a window under a day,
    or traffic not above 0.
    """
    if size < 0 or window < 1:
        raise ValueError(f"wanted a size of 0 or more and a window of 1 day or more, got {size} and {window}")
    accepted = {label.identity: label for label in labels if label.status == "accepted"}
    if not accepted:
        return Audit([], [])
    there = _population(accepted, traffic, bands)
    frame = frame_of(there.place, there.events, there.sure, size)
    drawn = draw(frame, _numbers([label.query for label in there.labels], seed, day, window))
    sampled = [
        Sampled(
            label=there.labels[at],
            stratum=there.names[there.place[at]],
            band=BANDS[there.band[at]],
            inclusion_probability=float(frame.chance[at]),
            traffic=float(there.events[at]),
        )
        for at in drawn
    ]
    strata, confidence = [], {}
    for name, part in zip(there.names, _parts(there.place), strict=True):
        band, sure = BANDS[there.band[part][0]], there.sure[part]
        strata.append(Stratum(name, band, len(sure), float(there.events[part].sum())))
        confidence[name] = sure[~np.isnan(sure)].tolist()
    return Audit(sampled, strata, confidence)


def confidence_of(label: Label) -> float:
    """A label is as sure as its least sure field, 0 to 1; nan where it tells no confidence."""
    return min(label.confidence.values(), default=float("nan"))


def frame_of(place: Places, events: Floats, sure: Floats, size: int) -> Frame:
    """What each stratum gives and each label's chance; one entry a label, `place` (of its stratum) sorted from 0 up.

    A label's size is its share of all labels plus its share of all traffic: chances in proportion to the first alone
    would be best to judge labels, to the second alone to judge traffic, and so neither weighs a label over twice as
    much as its own best would (a compromise for two purposes: Kish 1988, "Multipurpose sample designs", Survey
    Methodology 14:19-32). A stratum gives in proportion to its labels' sizes and to how much they may differ in being
    right (Neyman 1934, J. Royal Stat. Soc. 97:558-625).
    """
    parts = _parts(place)
    sizes = 1 / len(events) + events / events.sum()
    wanted = np.array([sizes[part].sum() * _spread(sure[part]) for part in parts])
    given = _allocation(wanted, np.bincount(place), size)
    chance = np.concatenate([_chances(sizes[part], n) for part, n in zip(parts, given.tolist(), strict=True)])
    return Frame(place, chance, given)


def draw(frame: Frame, numbers: Floats) -> Places:
    """The places of the labels drawn, by `numbers` that are uniform on [0, 1), one a label.

    Pareto sampling (Rosén 1997, "On sampling with probability proportional to size", J. Stat. Plan. Inference
    62:159-191): of each stratum the labels with the least U(1 - π) / π(1 - U), as many as it gives. So its size is
    fixed, and the chances are the wanted π but for an error that vanishes as the stratum gives more (a test measures
    it); a label whose π is 1 always comes. The order is that of U(1 - π) / (U(1 - π) + π(1 - U)), 1 at most.
    """
    late, soon = numbers * (1 - frame.chance), (1 - numbers) * frame.chance
    rank = np.divide(late, late + soon, out=np.ones_like(late), where=soon > 0)
    order = np.argsort(frame.stratum + rank, kind="stable")  # stratum by stratum, since no rank is above 1
    within = np.arange(len(order)) - np.searchsorted(frame.stratum, frame.stratum)  # 0, 1, ... in each stratum
    drawn: Places = np.sort(order[within < frame.given[frame.stratum]])
    return drawn


def sample_size(width: float, precision: float = 0.9) -> int:
    """Labels to judge for a 95% interval `width` wide in all (0.04 is ± 2 points), at an expected `precision`, 0 to 1.

    n = DESIGN_EFFECT · 4 z² p (1 - p) / width² (Cochran 1977, Sampling Techniques, §4.4; the design effect is Kish's,
    Survey Sampling, 1965, §8.2). Raises ValueError where the width is not above 0 or the precision not between 0 and 1.
    """
    if not (width > 0 and 0 < precision < 1):
        raise ValueError(f"wanted a width above 0 and a precision between 0 and 1, got {width} and {precision}")
    return ceil(DESIGN_EFFECT * 4 * Z95**2 * precision * (1 - precision) / width**2)


def budget_size(minutes: float, seconds_each: float) -> int:
    """Labels that people can judge in `minutes` where each takes `seconds_each`.

    Raises ValueError where the minutes are below 0 or the seconds not above it.
    """
    if minutes < 0 or seconds_each <= 0:
        raise ValueError(f"wanted minutes of 0 or more, seconds above 0, got {minutes} and {seconds_each}")
    return int(minutes * 60 / seconds_each)


class _Population(NamedTuple):
    """The accepted labels, stratum by stratum and in each by identity; the arrays have one entry a label."""

    labels: list[Label]
    names: list[str]
    place: Places
    events: Floats
    sure: Floats
    band: Places


def _population(accepted: Mapping[str, Label], traffic: Mapping[str, float], bands: Mapping[str, Band]) -> _Population:
    labels = [accepted[identity] for identity in sorted(accepted)]
    events = np.array([traffic[label.query] for label in labels], dtype=float)
    if not (events > 0).all():
        raise ValueError(f"wanted traffic above 0 for every query, got {events.min()}")
    sure = np.array([confidence_of(label) for label in labels], dtype=float)
    band = np.array([BANDS.index(bands[label.query]) for label in labels])
    names, place = _strata(band, sure)
    order = np.argsort(place, kind="stable")
    return _Population([labels[at] for at in order], names, place[order], events[order], sure[order], band[order])


def _strata(band: Places, sure: Floats) -> tuple[list[str], Places]:
    """The strata's names, and the place in them of each label: band by thirds of the confidence.

    Labels without a confidence are a class of their own. In each band the smallest class joins the smaller of its
    neighbours until none is under SMALLEST_STRATUM; bands never join.
    """
    known = sure[~np.isnan(sure)]
    cuts = np.quantile(known, [1 / 3, 2 / 3]) if len(known) else np.zeros(2)
    klass = np.where(np.isnan(sure), len(CLASSES), (sure[:, None] >= cuts).sum(axis=1))
    names: list[str] = []
    place = np.empty(len(band), dtype=np.int64)
    for number in np.unique(band):
        there = np.bincount(klass[band == number], minlength=len(CLASSES) + 1)
        for group in _merged([([at], int(count)) for at, count in enumerate(there) if count]):
            place[(band == number) & np.isin(klass, group)] = len(names)
            names.append(f"{BANDS[number]}: {', '.join([*CLASSES, NO_CONFIDENCE][at] for at in group)}")
    return names, place


def _merged(groups: list[tuple[list[int], int]]) -> list[list[int]]:
    """Neighbouring groups (members, labels), joined until none is under SMALLEST_STRATUM or one is left."""
    while len(groups) > 1 and min(count for _, count in groups) < SMALLEST_STRATUM:
        smallest = min(range(len(groups)), key=lambda at: groups[at][1])
        beside = [at for at in (smallest - 1, smallest + 1) if 0 <= at < len(groups)]
        first, last = sorted((smallest, min(beside, key=lambda at: groups[at][1])))
        joined = (groups[first][0] + groups[last][0], groups[first][1] + groups[last][1])
        groups = [*groups[:first], joined, *groups[last + 1 :]]
    return [members for members, _ in groups]


def _spread(sure: Floats) -> float:
    """The standard deviation of "is it right" where the mean confidence is the share that is; 0.5 at most."""
    known = sure[~np.isnan(sure)]
    mean = float(known.mean()) if len(known) else 0.5
    return max(sqrt(max(mean * (1 - mean), 0.0)), LEAST_SPREAD)


def _allocation(wanted: Floats, there: Places, size: int) -> Places:
    """How many of the labels `there` each stratum gives: in proportion to `wanted`; `size` in all, or all there are.

    No stratum gives under LEAST_EACH (less where `size` is too small for that) or more than it has.
    """
    size = min(size, int(there.sum()))
    least = np.minimum(there, min(LEAST_EACH, size // len(there)))
    low, high = 0.0, float((there / wanted).max())  # the scale at which every stratum gives all it has
    for _ in range(60):  # until floats can tell the two no more
        middle = (low + high) / 2
        short = np.clip(middle * wanted, least, there).sum() < size
        low, high = (middle, high) if short else (low, middle)
    exact = np.clip(high * wanted, least, there)
    given: Places = np.floor(exact + 1e-9).astype(np.int64)
    left = size - int(given.sum())
    given[np.argsort(given - exact, kind="stable")[:left]] += 1  # the largest remainders
    return given


def _chances(sizes: Floats, given: int) -> Floats:
    """The chance of each label of a stratum that gives `given`: in proportion to its size, 1 at most.

    What would be above 1 is taken for certain, and the rest shared again (Särndal, Swensson & Wretman 1992, §3.6.2).
    """
    chance = np.zeros(len(sizes))
    rest = np.ones(len(sizes), dtype=bool)
    while rest.any():
        chance[rest] = (given - int((~rest).sum())) * sizes[rest] / sizes[rest].sum()
        above = rest & (chance > 1 - 1e-9)
        if not above.any():
            break
        chance[above] = 1.0
        rest &= ~above
    return chance


def _numbers(queries: Sequence[str], seed: int, day: int, window: int) -> Floats:
    """Each label's permanent random number, on [0, 1), as it stands on `day`: a hash of seed and query, so that a label
    made anew stands where the old one stood.

    (Ohlsson 1995, "Coordination of samples using permanent random numbers", Business Survey Methods, ch. 9.) Samples
    rotate by shifting the numbers (ibid., §9.4). Here a label's number is shifted every `window` days, on a day of
    its own that a second hash draws, by the golden section: the numbers a label goes through fill [0, 1) evenly, so
    that one drawn with a chance under 0.38 leaves after `window` days at most, and comes back late.
    """
    hashes = b"".join(blake2b(f"{seed} {one}".encode(), digest_size=16).digest() for one in queries)
    uniform = (np.frombuffer(hashes, dtype="<u8").reshape(-1, 2) >> np.uint64(11)) * 2.0**-53
    shifts = np.floor((day + np.floor(uniform[:, 1] * window)) / window)
    shifted: Floats = (uniform[:, 0] + shifts * GOLDEN) % 1.0
    return shifted


def _parts(place: Places) -> list[slice]:
    """Where each stratum's labels stand."""
    return [slice(*ends) for ends in pairwise(np.searchsorted(place, np.arange(place[-1] + 2)).tolist())]
