"""The student's dataset: accepted labels, people's corrections first, nothing that evaluates (invariant 6)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rapidfuzz import fuzz, process

from labels.errors import InputError
from labels.files import digest, fresh_folder, read_manifest, write_manifest, write_parquet
from labels.records import Label, Verdict
from labels.task import Task
from student.preferences import preference_pairs
from student.rows import Row

NEAR = 90.0
"""Two queries are near-duplicates from this ratio on (0 to 100), their words sorted or their spaces left out: words
in another order give 100, and so do words written as one."""
MINIMUM_ROWS = 100


@dataclass(frozen=True)
class Dataset:
    """A finished dataset: its folder, and how many rows it holds and leaves out.

    `verified`: rows whose answer a person gave or confirmed; `corrected`: those they changed; `pairs`: preference pairs.
    """

    folder: Path
    rows: int
    verified: int
    corrected: int
    pairs: int
    held_out: int
    near_gold: int
    built: bool


def build_dataset(
    task: type[Task],
    labels: Sequence[Label],
    verdicts: Sequence[Verdict],
    gold: Collection[str],
    root: Path,
) -> Dataset:
    """Write the training rows (train.parquet: query, value) and preference pairs (preferences.parquet: query, chosen,
    rejected) under `root`, unless they are there already.

    `verdicts` are the answers of people, one a query; they outrank the label. Left out: labels that are neither accepted
    nor answered by people, every query of `gold`, and their near-duplicates. Raises InputError where too few rows are left.
    """
    answers = {said.query: said.value for said in verdicts if said.decision != "cant_tell" and said.value}
    accepted = [label for label in labels if (label.status == "accepted" and label.value) or label.query in answers]
    evaluating = frozenset(gold)
    candidates = [label for label in accepted if label.query not in evaluating]
    near = near_duplicates([label.query for label in candidates], sorted(evaluating))
    kept = [label for label, close in zip(candidates, near, strict=True) if not close]
    rows = sorted((label.query, answers.get(label.query) or str(label.value)) for label in kept)
    if len(rows) < MINIMUM_ROWS:
        raise InputError(
            f"the student's dataset has {len(rows)} rows of {len(labels)} labels, wanted at least {MINIMUM_ROWS}: "
            "give a longer log, or see `stillhouse labels` for what was rejected"
        )
    pairs = preference_pairs(verdicts, (label.query for label in kept))
    folder = root / digest(task.name, task.version(), rows, pairs)
    facts = {
        "rows": len(rows),
        "verified": sum(query in answers for query, _ in rows),
        "corrected": sum(answers.get(label.query, label.value) != label.value for label in kept),
        "pairs": len(pairs),
        "held_out": len(accepted) - len(candidates),
        "near_gold": len(candidates) - len(kept),
    }
    built = read_manifest(folder) is None
    if built:
        fresh_folder(folder)
        write_parquet(folder / "train.parquet", _table(("query", "value"), rows))
        write_parquet(folder / "preferences.parquet", _table(("query", "chosen", "rejected"), pairs))
        write_manifest(folder, task=task.name, task_version=task.version(), **facts)
    return Dataset(folder, built=built, **facts)


def _table(names: Sequence[str], rows: Sequence[tuple[str, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.table([pa.array(column, pa.string()) for column in columns], names=list(names))


def read_dataset(folder: Path) -> list[Row]:
    """The rows of a finished dataset."""
    return [Row(**row) for row in pq.read_table(folder / "train.parquet").to_pylist()]


def near_duplicates(queries: Sequence[str], against: Sequence[str]) -> list[bool]:
    """Whether each query is equal or near to any of `against`."""
    if not against:
        return [False] * len(queries)
    joined = [query.replace(" ", "") for query in against]
    close: list[bool] = []
    for start in range(0, len(queries), 1000):
        some = queries[start : start + 1000]
        scores = process.cdist(some, against, scorer=fuzz.token_sort_ratio, score_cutoff=NEAR, dtype=np.uint8)
        closed_up = process.cdist(
            [query.replace(" ", "") for query in some], joined, scorer=fuzz.ratio, score_cutoff=NEAR, dtype=np.uint8
        )
        close += (np.maximum(scores, closed_up).max(axis=1) >= NEAR).tolist()
    return close
