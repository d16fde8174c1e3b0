"""The judgement: what share of the teacher's accepted labels is right, by people's verdicts, and how sure that is."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from evals.intervals import Estimate, stratified_precision
from labels.records import Verdict


@dataclass(frozen=True)
class Judgement:
    """The share of accepted labels that are right in every field, with its 95% interval (0 to 1).

    `verdicts` is how many it rests on; `undecided` how many "can't tell" were left out; `simulated` whether any came
    from no person; `by_stratum` the same estimate by head, torso and tail.
    """

    precision: float
    low: float
    high: float
    verdicts: int
    undecided: int
    simulated: bool
    by_stratum: dict[str, Estimate]

    def to_json(self) -> dict[str, object]:
        """A dict `json.dumps` takes."""
        return asdict(self)


def judge(verdicts: Sequence[Verdict]) -> Judgement | None:
    """The judgement these verdicts allow, every label weighing alike; None where none decides anything.

    "Can't tell" is left out, and the decided verdicts of its stratum stand in for it: their weights grow by
    asked / decided (weighting-class adjustment for non-response; Särndal, Swensson & Wretman 1992, §15.6).
    """
    decided = [verdict for verdict in verdicts if verdict.decision != "cant_tell"]
    if not decided:
        return None
    asked, answered = _sizes(verdicts), _sizes(decided)
    weights = [asked[v.stratum] / answered[v.stratum] / v.inclusion_probability for v in decided]
    whole = _estimate(decided, weights)
    by_stratum = {}
    for stratum in sorted(answered, key=["head", "torso", "tail"].index):
        part = [(v, w) for v, w in zip(decided, weights, strict=True) if v.stratum == stratum]
        by_stratum[stratum] = _estimate([v for v, _ in part], [w for _, w in part])
    return Judgement(
        precision=whole.share,
        low=whole.low,
        high=whole.high,
        verdicts=len(decided),
        undecided=len(verdicts) - len(decided),
        simulated=any(verdict.simulated for verdict in verdicts),
        by_stratum=by_stratum,
    )


def _estimate(verdicts: Sequence[Verdict], weights: Sequence[float]) -> Estimate:
    right = [verdict.decision == "right" for verdict in verdicts]
    return stratified_precision(right, weights, [verdict.stratum for verdict in verdicts])


def _sizes(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """How many labels the verdicts of each stratum stand for: the sum of 1 / inclusion probability."""
    sizes: dict[str, float] = defaultdict(float)
    for verdict in verdicts:
        sizes[verdict.stratum] += 1 / verdict.inclusion_probability
    return sizes
