import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.queryner import all_kinds, held_out, semantic_roles, spans, three_kinds, write_gold, write_parts
from demo.queryner_tasks import QueryNer, QueryNerCollapsed
from evals.gold import read_gold
from flows.settings import ROOT
from labels.errors import InputError
from labels.guardrails import check_all
from labels.normalise import normalise
from labels.semantic_roles import SemanticRoles
from labels.split import split_of
from student.near import near_duplicates
from teacher.log import ingest

DATA = ROOT.parent / "shared" / "data" / "queryner"
REAL = DATA / "train.jsonl"
TASKS = {"spans": QueryNer, "collapsed": QueryNerCollapsed}
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
    found = spans(tokens, labels)
    assert semantic_roles(found) == SemanticRoles(product=product, brand=brand, attributes=attributes)


def test_an_inside_label_without_its_beginning_opens_a_span():
    assert spans(["a", "b", "c", "d"], ["I-color", "I-material", "O", "I-material"]) == [
        ("color", "a"), ("material", "b"), ("material", "d"),
    ]  # fmt: skip


KINDS = st.sampled_from([*QueryNer.model_fields])
WORD = st.text("abcdefgh0", min_size=1, max_size=5)
PHRASE = st.lists(WORD, min_size=1, max_size=3)


@given(st.lists(st.tuples(KINDS | st.none(), PHRASE), max_size=6))
def test_spans_written_as_bio_are_read_back(marked):
    tokens = [word for _, words in marked for word in words]
    labels = [
        "O" if kind is None else f"{'I' if place else 'B'}-{kind}"
        for kind, words in marked
        for place in range(len(words))
    ]
    assert spans(tokens, labels) == [(kind, " ".join(words)) for kind, words in marked if kind]


LABEL = st.just("O") | st.builds("{}-{}".format, st.sampled_from("BI"), KINDS)


@given(st.lists(st.tuples(WORD, LABEL), max_size=8))
def test_every_marked_word_is_in_one_span_whatever_the_marks(pairs):
    tokens, labels = [word for word, _ in pairs], [label for _, label in pairs]
    found = spans(tokens, labels)
    marked = [(label.partition("-")[2], word) for word, label in pairs if label != "O"]
    assert [(kind, word) for kind, text in found for word in text.split()] == marked


@given(st.lists(st.tuples(WORD, LABEL), min_size=1, max_size=8))
def test_both_tasks_hold_each_span_once_and_pass_their_guardrails(pairs):
    query = " ".join(word for word, _ in pairs)
    found = spans(query.split(), [label for _, label in pairs])
    fine, coarse = all_kinds(found).normalised(), three_kinds(found).normalised()
    assert fine.items() == set(found)
    kind = {"core_product_type": "product_type", "product_name": "product_type", "creator": "brand"}
    assert coarse.items() == {(kind.get(name, "attribute"), text) for name, text in found}
    assert check_all([fine], [query], [()]) == check_all([coarse], [query], [()]) == [None]


@pytest.mark.parametrize("task", TASKS.values())
def test_a_span_that_is_not_in_the_query_is_turned_down(task):
    first = next(iter(task.model_fields))
    answer = task(**{name: ["skirt"] if name == first else [] for name in task.model_fields})
    [rejected] = check_all([answer], ["red shirt"], [()])
    assert (rejected.guardrail, rejected.field) == ("grounded", first)


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
        line("milk", "B-flavour"),
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


def test_what_is_nearly_measured_never_trains_and_every_query_is_counted(tmp_path):
    train = [f"shirt {word}{number}" for number in range(60) for word in ("red", "linen")]
    test = ["shirt red7", "linen33 shirt", "desk lamp"]
    mark = "B-core_product_type B-modifier"
    (tmp_path / "test.jsonl").write_text("".join(line(query, mark) for query in test))
    path = write(tmp_path, *(line(query, mark) for query in train))
    parts = write_parts(path, tmp_path / "test.jsonl", tmp_path)
    found = {
        part: read_gold(tmp_path / "collapsed" / f"{part}.jsonl", "query", QueryNerCollapsed)
        for part in ("train", "dev", "test")
    }
    assert [*found["test"]] == test
    assert "shirt linen33" not in [*found["train"], *found["dev"]]
    assert all(split_of(query) == "dev" for query in found["dev"])
    assert not any(near_duplicates([*found["dev"]], test))
    assert not any(near_duplicates([*found["train"]], [*test, *found["dev"]]))
    assert parts == (
        len(found["train"]),
        len(found["dev"]),
        3,
        1,
        len(train) - 1 - len(found["train"]) - len(found["dev"]),
    )
    assert parts.near >= 1
    for part, answers in found.items():
        fine = read_gold(tmp_path / "spans" / f"{part}.jsonl", "query", QueryNer)
        assert fine.keys() == answers.keys()
        assert all(fine[query].modifier == answers[query].attribute for query in fine)


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


@pytest.mark.skipif(
    not REAL.is_file(), reason="the public QueryNER data is not beside this repository (../shared/data)"
)
def test_real_queryner_in_parts_loses_no_span_and_passes_every_guardrail(tmp_path):
    parts = write_parts(REAL, DATA / "dev.jsonl", tmp_path)
    assert (parts.test, parts.train + parts.dev + parts.equal + parts.near) == (871, 7841)
    assert 0.09 < parts.dev / 7841 < 0.11
    assert parts.equal + parts.near < 100
    marked = {}
    for text in (DATA / "dev.jsonl").read_text().splitlines():
        row = json.loads(text)
        marked[normalise(row["query"])] = {(k, normalise(t)) for k, t in spans(row["tokens"], row["labels"])}
    for name, task in TASKS.items():
        test = read_gold(tmp_path / name / "test.jsonl", "query", task)
        assert not any(check_all([*test.values()], [*test], [()] * len(test)))
        if task is QueryNer:
            assert {query: answer.items() for query, answer in test.items()} == marked
    trained = [json.loads(text)["query"] for text in (tmp_path / "spans" / "train.jsonl").read_text().splitlines()]
    assert not any(near_duplicates([*marked], trained)), "what trains is near what measures"
