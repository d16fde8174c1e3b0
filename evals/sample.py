"""The audit sample: which labels people are asked about, with known chances, so that the answer is unbiased."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labels.files import digest
from labels.records import Band, Label, Verdict

BANDS: tuple[Band, ...] = ("head", "torso", "tail")


@dataclass(frozen=True, slots=True)
class Sampled:
    """A label drawn for review, its stratum, and the chance (above 0, at most 1) it had of being drawn."""

    label: Label
    stratum: Band
    inclusion_probability: float


def audit_sample(labels: Sequence[Label], bands: Mapping[str, Band], size: int, seed: int) -> list[Sampled]:
    """Draw `size` accepted labels (all, where there are fewer), stratified by the band of their query.

    Every stratum gives alike, and what a small one lacks the others give, so that the rare head is judged as well
    as the long tail. Within a stratum it is a simple random sample without replacement: the labels with the
    smallest permanent random numbers, hashes of seed and identity (Ohlsson 1995, "Coordination of samples using
    permanent random numbers", in Business Survey Methods, ch. 9). So the order of `labels` does not matter, and
    with one label more the sample changes by one at most in each stratum. Keep the seed from night to night.

    `bands` maps a query to its band; raises KeyError where a label's query has none, ValueError on a negative size.
    """
    if size < 0:
        raise ValueError(f"the sample's size must be 0 or more, got {size}")
    strata: dict[Band, dict[str, Label]] = defaultdict(dict)
    for label in labels:
        if label.status == "accepted":
            strata[bands[label.query]][label.identity] = label
    taken = _allocation({band: len(strata[band]) for band in BANDS}, size)
    sampled = []
    for band in BANDS:
        ordered = sorted(strata[band].values(), key=lambda label: digest("audit", seed, label.identity))
        sampled += [Sampled(label, band, taken[band] / len(ordered)) for label in ordered[: taken[band]]]
    return sampled


def unasked(sampled: Iterable[Sampled], verdicts: Iterable[Verdict]) -> list[Sampled]:
    """Those of `sampled` that nobody has judged yet: nobody is asked about the same label again.

    Draw first, then drop: a label judged on an earlier night keeps its place, so a rerun asks nothing.
    """
    judged = {verdict.identity for verdict in verdicts}
    return [item for item in sampled if item.label.identity not in judged]


def _allocation(there: Mapping[Band, int], size: int) -> dict[Band, int]:
    """Equal shares of `size`, at most what is there, the rest shared again; odd ones go to the head first."""
    given: dict[Band, int] = dict.fromkeys(there, 0)
    size = min(size, sum(there.values()))
    while (left := size - sum(given.values())) > 0:
        wanting = [band for band in there if given[band] < there[band]]
        for place, band in enumerate(wanting):
            share = left // len(wanting) + (place < left % len(wanting))
            given[band] += min(share, there[band] - given[band])
    return given
