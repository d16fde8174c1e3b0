import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evals.gold import find_gold, read_gold
from labels.errors import InputError
from labels.semantic_roles import SemanticRoles


def roles(product="", brand="", *attributes):
    return SemanticRoles(product=product, brand=brand, attributes=list(attributes))


GOLD = {"red oat milk": roles("oat milk", "", "red", "1 l"), "acme": roles("", "acme")}


def test_parquet_json_lines_and_csv_give_the_same_gold_in_normal_form(tmp_path):
    rows = [
        {"Search": "Red  OAT milk", "product": "Oat Milk", "brand": None, "attributes": ["Red", "1 l"]},
        {"Search": "acme", "product": "", "brand": "ACME", "attributes": []},
        {"Search": "  ", "product": "x", "brand": "", "attributes": []},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "gold.parquet")
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "gold.csv").write_text(
        "Search,product,brand,attributes\nRed OAT milk,Oat Milk,,red; 1 l\nacme,,ACME,\n"
    )
    for name in ("gold.parquet", "gold.jsonl", "gold.csv"):
        assert read_gold(tmp_path / name, "Search", SemanticRoles) == GOLD, name


def test_a_missing_item_of_a_list_is_no_value_called_none(tmp_path):
    row = {"query": "tea", "product": "tea", "brand": "", "attributes": ["green", None]}
    (tmp_path / "gold.jsonl").write_text(json.dumps(row) + "\n")
    assert read_gold(tmp_path / "gold.jsonl", "query", SemanticRoles) == {"tea": roles("tea", "", "green")}


def test_gold_without_a_field_of_the_task_or_without_a_query_is_refused(tmp_path):
    (tmp_path / "gold.csv").write_text("query,product,brands,attributes\ntea,tea,,\n")
    with pytest.raises(InputError, match=r"the gold .* has no column 'brand'; did you mean 'brands'\?.* to brand$"):
        read_gold(tmp_path / "gold.csv", "query", SemanticRoles)
    with pytest.raises(InputError, match=r"Name the right one: --set gold\.query=COLUMN$"):
        read_gold(tmp_path / "gold.csv", "search", SemanticRoles)
    (tmp_path / "gold.csv").write_text("query,product,brand,attributes\n,tea,,\n")
    with pytest.raises(InputError, match="holds no query"):
        read_gold(tmp_path / "gold.csv", "query", SemanticRoles)


def test_a_query_with_two_answers_is_refused_by_its_rows_and_the_same_answer_twice_is_one(tmp_path):
    file = tmp_path / "gold.csv"
    file.write_text("query,product,brand,attributes\n,x,,\nTea,tea,,a;b\n,y,,\ntea,tea,,b;a\n")
    assert len(read_gold(file, "query", SemanticRoles)) == 1
    file.write_text("query,product,brand,attributes\nTea,tea,,\nmilk,milk,,\n tea,,tea,\nmilk,milk,,\ntea,pot,,\n")
    with pytest.raises(
        InputError, match=r"contradicts itself in 2 rows: .*\(rows 1 and 3, 1 and 5\). Keep one row a query"
    ):
        read_gold(file, "query", SemanticRoles)


ROWS = [
    {"query": "red oat milk", "product": "oat milk", "brand": None, "attributes": ["red", "1 l"]},
    {"query": "acme", "product": "", "brand": "acme", "attributes": []},
]


def test_gold_is_found_in_a_file_or_in_a_folder_of_the_datasets_library(tmp_path):
    import datasets

    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole.select([1]), "test": whole}).save_to_disk(tmp_path / "split")
    datasets.DatasetDict({"a": whole, "b": whole.select([1])}).save_to_disk(tmp_path / "parts")
    for source in ("gold.jsonl", "one", "split", "parts:a"):
        assert find_gold(str(tmp_path / source), "query", SemanticRoles) == GOLD, source
    assert len(find_gold(str(tmp_path / "parts:b"), "query", SemanticRoles)) == 1
    with pytest.raises(InputError, match="has the splits a, b; name one: "):
        find_gold(str(tmp_path / "parts"), "query", SemanticRoles)


def test_gold_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        find_gold(str(tmp_path / "gold.csv"), "query", SemanticRoles)
    with pytest.raises(InputError, match="no data at "):
        find_gold(str(tmp_path / "nothing"), "query", SemanticRoles)
