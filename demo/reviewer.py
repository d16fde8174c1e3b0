"""The demo's stand-in for people: answers the sample from the gold. Its verdicts are marked simulated everywhere."""

from collections.abc import Mapping, Sequence

from evals.sample import Sampled
from labels.records import Decision, Verdict
from labels.task import Task


def simulated_verdicts(task: type[Task], sampled: Sequence[Sampled], gold: Mapping[str, Task]) -> list[Verdict]:
    """A verdict for each sampled label: right or corrected by the gold, "can't tell" where the gold lacks the query."""
    verdicts = []
    for one in sampled:
        answer = gold.get(one.label.query)
        decision: Decision = "cant_tell"
        if answer:
            given = task.parse(one.label.value or "{}")
            decision = "right" if given.items() == answer.items() else "corrected"
        verdicts.append(
            Verdict(
                identity=one.label.identity,
                query=one.label.query,
                reviewer="simulated",
                decision=decision,
                value=answer.to_json() if answer else None,
                simulated=True,
                draft=one.label.value,
                task=one.label.task,
                task_version=one.label.task_version,
            )
        )
    return verdicts
