"""Preference pairs for DPO: what a person made of a label, against what the teacher had said."""

from collections.abc import Iterable

from labels.records import Verdict

Pair = tuple[str, str, str]


def preference_pairs(verdicts: Iterable[Verdict], trains: Iterable[str]) -> list[Pair]:
    """(query, chosen, rejected), the answers as the task's JSON, of every correction of a query in `trains`; by query.

    (Rafailov et al. 2023, "Direct Preference Optimization", NeurIPS, prefers chosen to rejected given the prompt.)
    """
    allowed = frozenset(trains)
    return sorted(
        (said.query, said.value, said.draft)
        for said in verdicts
        if said.decision == "corrected" and said.value and said.draft and said.value != said.draft
        if said.query in allowed
    )
