"""Stage: catalogue facts and verified examples for every query, and with them the identity its label will have."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.night import Night
from flows.people import answers_of, held_out
from flows.teacher import teacher_identity
from labels.embed import open_embedder
from labels.records import Example
from student.near import near_duplicates
from teacher.catalogue import read_catalogue
from teacher.converted import converted_fact
from teacher.examples import ExampleFinder
from teacher.plan import Request, Shown, plan
from teacher.requests import write_requests
from teacher.retrieve import Built, Found, Retriever, open_retriever

BATCH = 4096
PROBES = 1000
Row = dict[str, Any]


@dataclass(frozen=True)
class Finder:
    """Finds what to show the teacher for queries, as this night's settings say."""

    retriever: Retriever
    examples: ExampleFinder | None
    facts: int
    few_shots: int

    def shown(self, rows: Sequence[Row]) -> list[Shown]:
        """What to show for each row (query, and converted: the categories its shoppers chose)."""
        queries = [row["query"] for row in rows]
        none: list[list[Found]] = [[] for _ in rows]
        no_examples: list[list[Example]] = [[] for _ in rows]
        facts = self.retriever.search(queries, self.facts) if self.facts else none
        examples = self.examples.find(queries, self.few_shots) if self.examples else no_examples
        return [
            _shown(found, few, converted_fact(row["converted"]))
            for row, found, few in zip(rows, facts, examples, strict=True)
        ]


def retrieve_facts(night: Night) -> dict[str, Any]:
    """Write the night's requests; returns what the corpora hold and how their indexes came to be."""
    finder, held = open_finder(night)
    model, total = teacher_identity(night.settings), _queries(night).metadata.num_rows

    def batches(advance: Callable[[int], None]) -> Iterator[list[Request]]:
        for batch in _queries(night).iter_batches(BATCH, columns=["query", "converted"]):
            rows = batch.to_pylist()
            yield plan(night.task, [row["query"] for row in rows], finder.shown(rows), model)
            advance(len(rows))

    with night.screen.bar("retrieving facts", total) as advance:
        write_requests(night.folder / "requests.parquet", batches(advance))
    return held


def open_finder(night: Night) -> tuple[Finder, dict[str, Any]]:
    """The finder for this night's catalogue, verdicts and settings, and what its corpora hold, for the summary."""
    settings = night.settings
    c, r, t = settings.catalogue, settings.retrieval, settings.teacher
    catalogue = read_catalogue(Path(str(c.path)), c.columns)
    with night.screen.waiting(f"indexing {len(catalogue.facts):,} facts"):
        retriever, built = open_retriever(
            catalogue.facts, night.work / "indexes", r.embedder, r.lexical, r.index, _probes(night), night.screen.say
        )
    examples = _open_examples(night) if t.examples else None
    for one in built:
        night.screen.say(f"  {_in_words(one)}")
    held: dict[str, Any] = {"facts": len(catalogue.facts), "examples": len(examples) if examples else 0}
    held |= {"catalogue": {"rows": catalogue.rows} | catalogue.dropped}
    return Finder(retriever, examples, t.facts, t.examples), held | {"indexes": [_json(one) for one in built]}


def _open_examples(night: Night) -> ExampleFinder:
    """What people had verified of this task when the night began; nothing that measures, or is near what does
    (invariant 6). What they say while the night waits for them must not relabel what they look at.
    """
    said = [one for one in answers_of(night) if one.created < night.began.isoformat(timespec="microseconds")]
    near = near_duplicates([one.query for one in said], sorted(held_out(night)))
    close = {one.query for one, is_near in zip(said, near, strict=True) if is_near}
    embedder = open_embedder(night.settings.retrieval.embedder)
    return ExampleFinder(said, close, embedder, night.settings.teacher.example_similarity)


def _queries(night: Night) -> pq.ParquetFile:
    return pq.ParquetFile(night.warehouse.queries_file(night.id))


def _probes(night: Night) -> list[str]:
    """Up to PROBES of the night's queries, evenly over head and tail; none where the log was not taken."""
    if not night.warehouse.queries_file(night.id).exists():
        return []
    queries = _queries(night)
    every = max(1, queries.metadata.num_rows // PROBES)
    picked, seen = list[str](), 0
    for batch in queries.iter_batches(BATCH, columns=["query"]):
        names = batch["query"].to_pylist()
        picked += names[-seen % every :: every]
        seen += len(names)
    return picked[:PROBES]


def _shown(facts: Sequence[Found], examples: Sequence[Example], converted: str | None) -> Shown:
    lines = [(converted, 1.0)] if converted else []
    lines += [(found.text, round(found.score, 4)) for found in facts]
    return Shown(tuple(text for text, _ in lines), tuple(score for _, score in lines), tuple(examples))


def _json(built: Built) -> dict[str, Any]:
    return asdict(built) | {"folder": built.folder.name}


def _in_words(built: Built) -> str:
    how = {
        "reused": "reused",
        "updated": f"updated: {built.added:,} added, {built.removed:,} removed",
        "built": "built",
    }[built.how]
    return f"{built.entries:,} facts, {built.kind} index {how}, recall@10 {built.recall_at_10:.3f}"
