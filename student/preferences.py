"""Preference pairs for DPO: what a person made of a label, against what the teacher had said."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from labels.records import Verdict

Pair = tuple[str, str, str]
NAMES = ("query", "chosen", "rejected")


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


def pair_table(pairs: Sequence[Pair]) -> pa.Table:
    """The pairs as preferences.parquet holds them."""
    schema = pa.schema([(name, pa.string()) for name in NAMES])
    return pa.Table.from_pylist([dict(zip(NAMES, pair, strict=True)) for pair in pairs], schema)
