"""The student's dataset: which labels train, people's corrections first, nothing that evaluates (invariant 6)."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from labels.errors import InputError
from labels.files import digest, fresh_folder, read_manifest, sha256_of, write_manifest, write_parquet, write_text
from labels.records import Band, Label, Verdict
from labels.task import Task
from student.dataset_card import dataset_card
from student.kept import Kept, compare
from student.preferences import pair_table, preference_pairs
from student.replay import Replayed, read_replay, replay_table
from student.rows import Replay, Row, Source
from student.selection import REASONS, Reason, Selection, least_sure, left_out, measuring, rows_of

MINIMUM_ROWS = 100
ROWS = pa.schema(
    [
        ("query", pa.string()),
        ("value", pa.string()),
        ("source", pa.string()),
        ("band", pa.string()),
        ("traffic", pa.float64()),
        ("difficulty", pa.float64()),
        ("times", pa.int32()),
    ]
)
NOTHING: Mapping[str, Any] = MappingProxyType({})
DEFAULTS = Selection()


@dataclass(frozen=True)
class Dataset:
    """A finished dataset: its folder, how many rows it holds, and what it leaves out.

    `verified`: rows whose answer a person gave or confirmed; `corrected`: those they changed; `pairs`: preference pairs;
    `replay`: general instruction rows. `left_out` counts the labels that do not train by the reason; with `rows` they
    are all labels. `held_out` and `near_gold` are of these. `built`: now, not before.
    """

    folder: Path
    rows: int
    verified: int
    corrected: int
    pairs: int
    replay: int
    left_out: dict[Reason, int]
    kept: Kept
    built: bool

    @property
    def held_out(self) -> int:
        """Labels left out because their query measures."""
        return self.left_out["held_out"]

    @property
    def near_gold(self) -> int:
        """Labels left out because their query is near one that measures."""
        return self.left_out["near_gold"]


def build_dataset(
    task: type[Task],
    labels: Sequence[Label],
    verdicts: Sequence[Verdict],
    gold: Collection[str],
    root: Path,
    *,
    selection: Selection = DEFAULTS,
    traffic: Mapping[str, float] = NOTHING,
    bands: Mapping[str, Band] = NOTHING,
    confidence: Callable[[Label], float] = least_sure,
    seed: int = 0,
    source: Source = "teacher",
) -> Dataset:
    """Write the rows (train.parquet), preference pairs (preferences.parquet), general rows (replay.parquet) and a card
    (README.md) under `root`, in a folder named by its content, unless they are there already.

    `verdicts` are the answers of people, one a query; they outrank the label. `gold` are the queries that measure.
    `traffic` (events) and `bands` are by query, 1 and tail where unknown; `confidence` is the chance, 0 to 1, that a
    label is right. Raises InputError where no label can train, too few rows are left, or all have the same answer.
    """
    answers = {said.query: said.value for said in verdicts if said.decision != "cant_tell" and said.value}
    all_rows = rows_of(labels, answers, selection.verified_weight, traffic, bands, confidence, source)
    measures = measuring([label.query for label in labels], gold)
    reasons = left_out(task, labels, all_rows, measures, selection, seed)
    counts = Counter(reason for reason in reasons if reason)
    kept = [place for place, reason in enumerate(reasons) if reason is None]
    rows = sorted((all_rows[place] for place in kept), key=lambda row: row.query)
    _check(rows, len(labels), counts)
    pairs = preference_pairs(verdicts, (row.query for row in rows))
    wanted = round(selection.replay_share * len(rows)) if selection.replay else 0
    replayed = read_replay(str(selection.replay), wanted, seed, gold) if wanted else Replayed()

    columns = {name: [getattr(row, name) for row in rows] for name in ROWS.names}
    folder = root / digest(task.name, task.version(), columns, pairs, [*map(asdict, replayed.rows)])
    whole = [place for place, why in enumerate(measures) if not why and reasons[place] != "failed"]
    dataset = Dataset(
        folder=folder,
        rows=len(rows),
        verified=sum(row.source == "people" for row in rows),
        corrected=sum(all_rows[place].value != labels[place].value for place in kept),
        pairs=len(pairs),
        replay=len(replayed.rows),
        left_out={reason: counts[reason] for reason in REASONS},
        kept=compare([all_rows[place] for place in whole], [reasons[place] for place in whole], selection),
        built=read_manifest(folder) is None,
    )
    if dataset.built:
        fresh_folder(folder)
        write_parquet(folder / "train.parquet", pa.table(columns, ROWS))
        write_parquet(folder / "preferences.parquet", pair_table(pairs))
        write_parquet(folder / "replay.parquet", replay_table(replayed.rows))
        read = asdict(replayed) | {"rows": len(replayed.rows), "wanted": wanted}
        facts = _facts(dataset) | {"selection": asdict(selection), "seed": seed, "replayed": read}
        facts |= {"labels": len(labels), "task": task.name, "task_version": task.version()}
        write_text(folder / "README.md", dataset_card(facts))
        write_manifest(folder, **facts)
    return dataset


def read_dataset(folder: Path) -> list[Row]:
    """The rows of a finished dataset, by query."""
    return [Row(**row) for row in pq.read_table(folder / "train.parquet").to_pylist()]


def read_replay_rows(folder: Path) -> list[Replay]:
    """The general instruction rows of a finished dataset; empty where none were wanted."""
    return [Replay(**row) for row in pq.read_table(folder / "replay.parquet").to_pylist()]


def _check(rows: Sequence[Row], labels: int, counts: Mapping[Reason, int]) -> None:
    """Raise InputError where there is nothing, too little or nothing different to learn from."""
    reasons = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in sorted(counts.items()))
    if labels == counts.get("rejected", 0) + counts.get("failed", 0):
        raise InputError(
            f"the student has nothing to learn from: no label is accepted or answered by people, of {labels:,} "
            f"({reasons or 'there are none'}); see `stillhouse labels` for why"
        )
    if len(rows) < MINIMUM_ROWS:
        measures = counts.get("held_out", 0) + counts.get("near_gold", 0)
        if len(rows) + measures >= MINIMUM_ROWS:
            advice = f", or other gold: {measures:,} of these labels are of queries that measure, or near one, and never train"
        else:
            advice = " (a longer log or file; in a night `stillhouse labels` shows what was rejected)"
        raise InputError(
            f"the student's dataset has {len(rows)} rows of {labels} labels, wanted at least {MINIMUM_ROWS}: give more{advice}"
            + (f" (left out: {reasons})" if reasons else "")
        )
    if len({row.value for row in rows}) == 1:
        raise InputError(
            f"all {len(rows):,} rows of the student's dataset have the same answer, {rows[0].value}: nothing can be learnt "
            "from one class only; look at the labels (`stillhouse labels`), the task's instruction and its teacher"
        )


def _facts(dataset: Dataset) -> dict[str, Any]:
    """What the manifest and the card say of it, with the SHA-256 of its files, which are there by now."""
    facts = asdict(dataset) | {"held_out": dataset.held_out, "near_gold": dataset.near_gold}
    del facts["folder"], facts["built"]
    return facts | {"files": {path.name: sha256_of(path) for path in sorted(dataset.folder.glob("*.parquet"))}}
