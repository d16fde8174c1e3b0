"""A judgement by hand: so many labels right and wrong, of a tail a hundred times as large."""

from evals.judge import judge
from evals.sample import Audit, Sampled, Stratum
from labels.records import Verdict
from labels.semantic_roles import SemanticRoles
from tests.labels.shop import label


def reviewed(right, wrong=0, simulated=False, others=100):
    """The audit, and people's verdicts on it; `others` labels are in the tail for each that was sampled."""
    number = right + wrong
    labels = [label(n, task="semantic_roles", confidence={}) for n in range(number)]
    stratum = Stratum("tail", "tail", number * others, float(number * others))
    sampled = [Sampled(one, "tail", "tail", 1 / others, 1.0) for one in labels]
    tea = SemanticRoles(product="tea", brand="", attributes=[]).to_json()
    said = [
        Verdict(one.identity, one.query, "ann", "right" if n < right else "corrected", one.value if n < right else tea,
                simulated=simulated)
        for n, one in enumerate(labels)
    ]  # fmt: skip
    return Audit(sampled, [stratum]), said


def judged(right, wrong=0, simulated=False):
    """What these verdicts say of the teacher."""
    audit, said = reviewed(right, wrong, simulated)
    return judge(audit, said, SemanticRoles)
