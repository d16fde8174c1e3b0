import pyarrow.parquet as pq

from demo.reviewer import simulated_verdicts
from demo.write import held_out, write_demo
from evals.sample import Sampled
from labels.files import MANIFEST, read_manifest
from labels.semantic_roles import SemanticRoles
from tests.labels.shop import label


def value(product, *attributes):
    return SemanticRoles(product=product, brand="", attributes=list(attributes)).to_json()


def test_the_simulated_reviewer_answers_from_the_gold_and_says_that_it_is_simulated():
    gold = {"red tea": SemanticRoles(product="tea", brand="", attributes=["red", "1 l"])}
    labels = [
        label(1, "red tea", value=value("tea", "1 l", "red")),  # the order of a list is no difference
        label(2, "red tea", value=value("red tea")),
        label(3, "unknown", value=value("unknown")),
    ]
    verdicts = simulated_verdicts(
        SemanticRoles, [Sampled(item, "tail · surest", "tail", 0.5, 1.0) for item in labels], gold
    )
    right = value("tea", "red", "1 l")
    assert [(verdict.identity, verdict.decision, verdict.value) for verdict in verdicts] == [
        ("id1", "right", right), ("id2", "corrected", right), ("id3", "cant_tell", None),
    ]  # fmt: skip
    assert all(verdict.simulated and verdict.reviewer == "simulated" for verdict in verdicts)
    assert [(verdict.draft, verdict.task) for verdict in verdicts] == [(item.value, item.task) for item in labels]


def test_the_shop_is_written_once_with_its_gold_apart_and_again_when_asked_for_more(tmp_path):
    write_demo(tmp_path, rows=500, queries=400)
    log, pool, gold = (
        pq.read_table(tmp_path / name) for name in ("log.parquet", "gold/reviewer.parquet", "gold/held_out.parquet")
    )
    assert (log.num_rows, pool.num_rows) == (500, 400)
    assert not {"product", "brand", "attributes"} & set(log.column_names)
    assert gold["query"].to_pylist() == [query for query in pool["query"].to_pylist() if held_out(query)]
    assert 30 < gold.num_rows < 90
    assert read_manifest(tmp_path)["counts"]["log.parquet"] == 500
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_demo(tmp_path, rows=500, queries=400)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    write_demo(tmp_path, rows=600, queries=400)
    assert pq.read_table(tmp_path / "log.parquet").num_rows == 600
    assert (tmp_path / MANIFEST).stat().st_mtime_ns > before[tmp_path / MANIFEST]
