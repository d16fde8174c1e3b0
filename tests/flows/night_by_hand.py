"""A night that has got as far as its labels, made by hand, for tests of the stages that people take part in."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from cache.head import Head
from cache.layout import entry
from flows.night import Night
from flows.screen import Screen
from flows.settings import load_settings
from labels.semantic_roles import SemanticRoles
from tests.labels import shop

OURS = {"task": SemanticRoles.name, "task_version": SemanticRoles.version()}


def roles(product="milk", brand="", attributes=()):
    """An answer, as the task's JSON."""
    return SemanticRoles(product=product, brand=brand, attributes=list(attributes)).to_json()


def label(number, confidence=0.9, **other):
    """A label of the built-in task."""
    return shop.label(number, confidence={"product": confidence, "brand": 1.0}, **OURS | other)


def verdict(number, decision="right", value=None, **other):
    """A verdict of the built-in task."""
    return shop.verdict(number, decision, value, **OURS | other)


def begin(folder, labels, verdicts=(), gold=None, night="n1", **changes):
    """The night; `gold` maps queries to products, `changes` are settings, `__` for the dot."""
    values = {"work": str(folder)} | {name.replace("__", "."): value for name, value in changes.items()}
    if gold:
        rows = [{"query": query, "product": right, "brand": "", "attributes": ""} for query, right in gold.items()]
        pq.write_table(pa.Table.from_pylist(rows), folder / "gold.parquet")
        values["gold.path"] = str(folder / "gold.parquet")
    screen = Screen(Console(file=io.StringIO(), width=200))
    made = Night(night, load_settings(changes=values, environment={}), screen)
    made.folder.mkdir(parents=True, exist_ok=True)
    made.warehouse.add_labels(labels)
    made.warehouse.add_verdicts(verdicts)
    pq.write_table(pa.table({"identity": [one.identity for one in labels]}), made.folder / "requests.parquet")
    write_queries(made, [one.query for one in labels])
    return made


def write_queries(night, queries):
    """The night's queries, as after its ingest: most frequent first."""
    rank = {query: place for place, query in enumerate(dict.fromkeys(queries), start=1)}
    bands = [
        "head" if place <= len(rank) / 10 else "torso" if place <= len(rank) / 3 else "tail" for place in rank.values()
    ]
    night.warehouse.queries_file(night.id).parent.mkdir(parents=True, exist_ok=True)
    columns = {"query": list(rank), "traffic": [1000 / place for place in rank.values()], "band": bands}
    nothing = pa.nulls(len(rank), pa.list_(pa.struct([("category", pa.string()), ("weight", pa.float64())])))
    columns |= {"night": [night.id] * len(rank), "converted": nothing}
    pq.write_table(pa.table(columns), night.warehouse.queries_file(night.id))


def head_of(*queries):
    """A head of these queries, as `flows.head` would make it."""
    answer = entry({"product": "milk", "brand": "", "attributes": []}, 1.0, "teacher")
    return Head([(query, answer) for query in queries], 0.5, 1000, 0, "share", len(queries))


def said(night):
    """What the night has said on its screen."""
    return night.screen.console.file.getvalue()
