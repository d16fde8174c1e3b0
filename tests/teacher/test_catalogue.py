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
    return [fact.line for fact in read_catalogue(path, columns)]


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
    assert read_catalogue(path, ALL)[1].indexed == "northwind oat milk"


def test_rows_without_a_name_are_no_facts_and_a_catalogue_of_them_is_refused(tmp_path):
    path = write(tmp_path, title=["  ", None, "Tea"], brand=["acme", "acme", None], product=[" ", "", "  "])
    assert lines(path, ALL) == [" | tea"]
    bare = write(tmp_path, title=["", None], brand=["acme", "acme"])
    with pytest.raises(InputError, match=r"holds no products; wanted at least one row with a title"):
        read_catalogue(bare, NO_PRODUCT)


def test_columns_that_hold_numbers_are_read_as_text(tmp_path):
    path = write(tmp_path, title=[1984, 42], brand=[7, None])
    assert lines(path, NO_PRODUCT) == [" | 42", "7 | 1984"]


def test_a_long_title_is_cut_so_that_prompts_stay_short():
    fact = fact_of("Acme", "", "very " * 100 + "long")
    assert len(fact.line) <= len("acme | ") + MAX_FACT_CHARS
    assert fact.line == fact.line.strip()
