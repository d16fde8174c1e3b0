import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labels.errors import InputError
from teacher.catalogue import MAX_FACT_CHARS, fact_of, read_catalogue

ALL = {"title": "title", "brand": "brand", "product": "product"}
NO_PRODUCT = ALL | {"product": None}


def write(folder, **columns):
    pq.write_table(pa.table(columns), folder / "catalogue.parquet")
    return folder / "catalogue.parquet"


def lines(path, columns):
    return [fact.line for fact in read_catalogue(path, columns).facts]


def test_a_catalogue_is_its_distinct_facts_in_a_stable_order(tmp_path):
    path = write(
        tmp_path,
        title=["Northwind Oat Milk 1 l", "Northwind Oat Milk 2 l", "Acme Tea"],
        brand=["Northwind", "northwind ", "Acme"],
        product=["Oat Milk", "oat  milk", None],
    )
    assert lines(path, ALL) == ["acme | acme tea", "northwind | oat milk"]  # a title stands in for a missing product
    assert lines(path, NO_PRODUCT) == [
        "acme | acme tea", "northwind | northwind oat milk 1 l", "northwind | northwind oat milk 2 l",
    ]  # fmt: skip
    assert lines(path, {"title": "title", "brand": None, "product": None})[0] == " | acme tea"
    read = read_catalogue(path, ALL)
    assert read.facts[1].indexed == "northwind oat milk"
    assert (read.rows, read.dropped) == (3, {"duplicate id": 0, "no name": 0})


def test_a_category_is_the_last_part_of_the_line_and_is_searched_too(tmp_path):
    path = write(tmp_path, title=["Oat Milk", "Tea"], brand=["Northwind", None], shelf=["Dairy > Milk", None])
    facts = read_catalogue(path, {"title": "title", "brand": "brand", "category": "shelf"}).facts
    assert [(fact.line, fact.indexed) for fact in facts] == [
        (" | tea", "tea"),
        ("northwind | oat milk | dairy > milk", "northwind oat milk dairy > milk"),
    ]


def test_rows_without_a_name_are_no_facts_and_a_catalogue_of_them_is_refused(tmp_path):
    blank = ["  ", None, "\u200b\x00 ", "Tea"]
    path = write(tmp_path, title=blank, brand=["acme", "acme", "acme", None], product=[" ", "", None, "  "])
    read = read_catalogue(path, ALL)
    assert [fact.line for fact in read.facts] == [" | tea"]
    assert read.dropped["no name"] == 3
    bare = write(tmp_path, title=["", None, "--"], brand=["acme", "acme", "b"])
    with pytest.raises(InputError, match=r"holds no products; wanted at least one row with a title"):
        read_catalogue(bare, NO_PRODUCT)


@pytest.mark.parametrize("ids", [["7", "8", "7", "7", " ", None, None], [7, 8, 7, 7, None, None, None]])
def test_of_rows_with_one_id_the_first_counts_and_rows_without_an_id_all_do(tmp_path, ids):
    path = write(tmp_path, title=["milk", "tea", "soap", "soap", "jam", "ham", "ham"], sku=ids)
    read = read_catalogue(path, {"title": "title", "id": "sku"})
    assert [fact.indexed for fact in read.facts] == ["ham", "jam", "milk", "tea"]
    assert (read.rows, read.dropped) == (7, {"duplicate id": 2, "no name": 0})
    assert read_catalogue(path, {"title": "title"}).dropped["duplicate id"] == 0


def test_the_first_row_of_an_id_is_the_first_of_the_file_however_long_it_is(tmp_path):
    rows = 300_000  # several row groups, read by several threads
    path = write(tmp_path, title=[f"thing {row}" for row in range(rows)], id=[row % 1000 for row in range(rows)])
    read = read_catalogue(path, {"title": "title", "id": "id"})
    assert {fact.indexed for fact in read.facts} == {f"thing {row}" for row in range(1000)}
    assert read.dropped["duplicate id"] == rows - 1000


def test_texts_of_a_megabyte_are_cut_as_they_are_read(tmp_path):
    long = "Oat " * 250_000
    path = write(
        tmp_path, title=[long + str(row) for row in range(40)], brand=["b" * 1_000_000] * 40, category=[long] * 40
    )
    tracemalloc.start()
    facts = read_catalogue(path, {name: name for name in ("title", "brand", "category")}).facts
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(facts) == 1
    assert [len(part) for part in facts[0].line.split(" | ")] == [
        MAX_FACT_CHARS,
        MAX_FACT_CHARS - 1,
        MAX_FACT_CHARS - 1,
    ]
    assert peak < 10_000_000  # Python never holds the 120 MB


def test_columns_that_hold_numbers_are_read_as_text(tmp_path):
    path = write(tmp_path, title=[1984, 42], brand=[7, None], category=[2.5, None])
    assert lines(path, NO_PRODUCT) == [" | 42", "7 | 1984"]
    assert lines(path, NO_PRODUCT | {"category": "category"}) == [" | 42", "7 | 1984 | 2.5"]


def test_names_in_any_script_and_half_an_emoji_are_read(tmp_path):
    path = tmp_path / "catalogue.jsonl"
    path.write_bytes(
        b'{"title": "\\u725b\\u5976"}\n{"title": "\\u062d\\u0644\\u064a\\u0628"}\n{"title": "bar \\ud83d"}\n'
    )
    assert lines(path, {"title": "title"}) == [" | bar \ufffd", " | حليب", " | 牛奶"]


def test_facts_that_read_the_same_are_one(tmp_path):
    path = write(tmp_path, title=["b | c", "c"], brand=["a", "a | b"])
    assert lines(path, NO_PRODUCT) == ["a | b | c"]


def test_a_long_title_is_cut_so_that_prompts_stay_short():
    fact = fact_of("Acme", "", "very " * 100 + "long")
    assert len(fact.line) <= len("acme | ") + MAX_FACT_CHARS
    assert fact.line == fact.line.strip()
