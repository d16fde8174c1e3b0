import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from demo.queryner import collapse, held_out, spans, write_gold
from evals.gold import read_gold
from flows.settings import ROOT
from labels.errors import InputError
from labels.semantic_roles import SemanticRoles
from teacher.log import ingest

REAL = ROOT.parent / "shared" / "data" / "queryner" / "train.jsonl"
QUERY = {"query": "query", "time": None, "count": None}


def line(query, labels):
    return json.dumps({"example_id": 1, "query": query, "tokens": query.split(), "labels": labels.split()}) + "\n"


def write(folder, *lines):
    path = folder / "train.jsonl"
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(
    ("annotated", "product", "brand", "attributes"),
    [
        ("white/B-color duvet/B-core_product_type cover/I-core_product_type", "duvet cover", "", ["white"]),
        (
            "eminem/B-content iphone/B-product_name 6/I-product_name case/B-core_product_type",
            "iphone 6 case",
            "",
            ["eminem"],
        ),
        ("Meguiars/B-creator gold/B-product_name class/I-product_name", "gold class", "meguiars", []),
        (
            "bag/B-core_product_type by/O north/B-creator face/I-creator bag/B-core_product_type",
            "bag bag",
            "north face",
            [],
        ),
        ("red/B-color blue/B-color shirt/B-core_product_type", "shirt", "", ["red", "blue"]),
        ("2/B-UoM liter/I-UoM red/B-color milk/B-core_product_type", "milk", "", ["2 liter", "red"]),
        ("of/O the/O", "", "", []),
    ],
)
def test_the_17_kinds_collapse_to_three_slots(annotated, product, brand, attributes):
    tokens, labels = zip(*(pair.split("/") for pair in annotated.split()), strict=True)
    assert collapse(tokens, labels) == SemanticRoles(product=product, brand=brand, attributes=attributes)


def test_an_inside_label_without_its_beginning_opens_a_span():
    assert spans(["a", "b", "c", "d"], ["I-color", "I-material", "O", "I-material"]) == [
        ("color", "a"), ("material", "b"), ("material", "d"),
    ]  # fmt: skip


def test_only_held_out_queries_are_gold_and_each_once(tmp_path):
    queries = [f"shirt {number}" for number in range(200)]
    lines = [line(query, "B-core_product_type B-quantity") for query in [*queries, "SHIRT 0", "shirt  1"]]
    counts = write_gold(write(tmp_path, *lines), tmp_path / "out")
    gold = read_gold(tmp_path / "out" / "gold.jsonl", "query", SemanticRoles)
    assert set(gold) == {query for query in queries if held_out(query)}
    assert counts == (200, len(gold))
    assert 20 < len(gold) < 60
    assert all(answer.product == "shirt" and len(answer.attributes) == 1 for answer in gold.values())


def test_which_queries_are_held_out_never_changes():
    words = ["milk", "tea", "red shirt", "iphone 6 case", "teeth whitening", "lamp", "air fryer", "desk", "rug", "mug"]
    assert [word for word in words if held_out(word)] == ["desk", "rug"]


@pytest.mark.parametrize(
    "bad",
    [
        "not json\n",
        "[]\n",
        '{"query": "milk"}\n',
        '{"query": 7, "tokens": [], "labels": []}\n',
        line("oat milk", "B-core_product_type"),
        line("milk", "core_product_type"),
        line("milk", "X-color"),
        line("milk", "B-"),
    ],
)
def test_a_file_that_is_not_queryners_is_refused_naming_the_line(tmp_path, bad):
    path = write(tmp_path, line("milk", "B-core_product_type"), bad)
    with pytest.raises(InputError, match=r"line 2: wanted QueryNER's query, tokens and labels"):
        write_gold(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote_and_fails_in_one_line(tmp_path):
    path = write(tmp_path, line("Desk", "B-core_product_type"), line("milk", "B-core_product_type"))
    command = [sys.executable, "-m", "demo.queryner", path, tmp_path / "out"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == f"1 of 2 distinct queries are gold: {tmp_path}/out/gold.jsonl\n"
    command[3] = tmp_path / "gone.jsonl"
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"queryner: the queries {tmp_path}/gone.jsonl can't be read: ")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.skipif(
    not REAL.is_file(), reason="the public QueryNER data is not beside this repository (../shared/data)"
)
def test_real_queryner_makes_gold_of_a_fifth_of_its_queries_and_reads_as_a_log(tmp_path):
    counts = write_gold(REAL, tmp_path)
    gold = read_gold(tmp_path / "gold.jsonl", "query", SemanticRoles)
    log = ingest(REAL, QUERY, tmp_path / "queries.parquet", tmp_path / "scratch")
    assert log.rows == 7841
    asked = set(pq.read_table(tmp_path / "queries.parquet")["query"].to_pylist())
    assert counts.queries == len(asked) == log.queries, log.dropped
    assert len(gold) == counts.gold
    assert 0.18 < counts.gold / counts.queries < 0.22
    assert len(set(gold) & asked) > 0.99 * len(gold)
    named = {name: sum(bool(getattr(answer, name)) for answer in gold.values()) for name in SemanticRoles.model_fields}
    assert named["product"] > named["attributes"] > named["brand"] > 200
    for query, answer in gold.items():
        words = set(query.split())
        assert all(set(value.split()) <= words for _, value in answer.items()), query
