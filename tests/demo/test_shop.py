"""The invented shop keeps its promises: same seed, same shop; honest gold; new brands; real mess."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.brands import brand_names, side_of
from demo.shop import Shop, make_log, make_shop
from demo.surfaces import surfaces
from demo.words import ATTRIBUTES, CATEGORIES, PRODUCTS, SIZES
from demo.write import write_demo

CATALOGUE_SHA = "89345d4cb60d6964936731290f29bf44fcd6e7150435770c3a9f4af9dba4a6eb"
POOL_SHA = "697d50d330bf0fb3408acee2f603760c4c3aa3b2be899e2dfe336b43a0c02530"
LOG_SHA = "bf67fd20e3b1ac7258f15042a3a4ba6f308ce0255706dcb0cbf3b8ba53dd2cda"


@pytest.fixture(scope="module")
def shop() -> Shop:
    return make_shop()


@pytest.fixture(scope="module")
def log(shop: Shop) -> pa.Table:
    return make_log(shop, 50_000)


@pytest.fixture(scope="module")
def pool(shop: Shop) -> list[dict]:
    return shop.pool.to_pylist()


def sha(table: pa.Table) -> str:
    """A hash of what a table says, whatever its chunks."""
    return hashlib.sha256(json.dumps(table.to_pylist(), default=str).encode()).hexdigest()


def words_of(row: dict) -> list[str]:
    """The words of a gold answer, in no order."""
    return sorted(" ".join([row["brand"], row["product"], *row["attributes"]]).split())


def forms(term: str, kind: str) -> list[str]:
    rng = np.random.Generator(np.random.PCG64(1))
    return [form for form, _ in surfaces(term, kind, rng)]


def test_the_same_seed_gives_the_same_shop_on_every_machine(shop: Shop, log: pa.Table) -> None:
    # A change here changes every tiny model: raise demo.shop.VERSION with it.
    assert (sha(shop.catalogue), sha(shop.pool), sha(log)) == (CATALOGUE_SHA, POOL_SHA, LOG_SHA)


def test_another_seed_gives_another_shop() -> None:
    one, two = (make_shop(seed, brands=20, products=200, queries=500) for seed in (1, 2))
    assert sha(one.catalogue) != sha(two.catalogue)
    assert sha(one.pool) != sha(two.pool)
    assert sha(make_log(one, 1000, seed=1)) != sha(make_log(one, 1000, seed=2))


def test_a_demo_brand_is_new_to_whoever_learned_on_pretraining_brands() -> None:
    demo = brand_names("demo", 3000, seed=7)
    learned = [name for seed in range(4) for name in brand_names("pretraining", 1500, seed)]
    learned_words = {word for name in learned for word in name.split()}
    for name in demo:
        own = [word for word in name.split() if side_of(word) == "demo"]
        assert own, name
        assert not learned_words & set(own), name


def test_a_brand_never_holds_a_word_of_the_other_side() -> None:
    for side in ("demo", "pretraining"):
        for name in brand_names(side, 1500, seed=3):
            assert {side_of(word) for word in name.split()} <= {side, None}, name


def test_both_sides_name_brands_in_the_same_styles() -> None:
    def shape(side: str) -> np.ndarray:
        names = brand_names(side, 2000, seed=5)
        lengths = Counter(len(name.split()) for name in names)
        grocery = sum(any(side_of(w) is None for w in name.split()) for name in names)
        return np.array([lengths[1], lengths[2], lengths[3], grocery]) / len(names)

    assert np.abs(shape("demo") - shape("pretraining")).max() < 0.05


def test_there_are_brands_enough_and_none_is_a_product_or_an_attribute() -> None:
    names = brand_names("pretraining", 4000, seed=0)
    assert len(set(names)) == 4000
    assert not set(names) & set(PRODUCTS + ATTRIBUTES)
    assert brand_names("demo", 1, seed=99) == ["verdant machine"]


def test_no_word_means_two_things() -> None:
    assert len(set(PRODUCTS)) == len(PRODUCTS)
    assert not set(PRODUCTS) & set(ATTRIBUTES)
    for c in CATEGORIES:
        for attribute in c.diets + c.forms + c.flavours:
            for product in c.products:
                assert f"{attribute} {product}" not in PRODUCTS


def test_a_slip_of_one_term_is_never_another_term() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    taken = frozenset(PRODUCTS + ATTRIBUTES)
    for term in PRODUCTS:
        first, *slips = [form for form, _ in surfaces(term, "product", rng, taken)]
        assert first == term
        assert not taken & set(slips), term


def test_shoppers_type_a_term_in_many_ways() -> None:
    assert {"oat milk", "oat milks", "oatmilk"} <= set(forms("oat milk", "product"))
    assert "verdantmachine" in forms("verdant machine", "brand")
    assert "org" in forms("organic", "attribute")
    assert {"2l", "2 l", "2 litre", "2 liters"} <= set(forms("2 l", "attribute"))
    assert {"12pk", "12 pack"} <= set(forms("12 pack", "attribute"))
    assert {"500g", "500 grams"} <= set(forms("500 g", "attribute"))
    assert forms("gin", "product") == ["gin", "gins"]  # too short for a typo


def test_the_log_and_the_catalogue_hold_no_gold(tmp_path: Path) -> None:
    write_demo(tmp_path, rows=2000)
    assert pq.read_schema(tmp_path / "log.parquet").names == ["time", "session", "query"]
    catalogue = pq.read_table(tmp_path / "catalogue.parquet")
    assert catalogue.column_names == ["id", "title", "brand", "product", "category", "attributes"]
    assert [p.name for p in tmp_path.glob("*.parquet") if "gold" in p.name] == []
    gold = pq.read_table(tmp_path / "gold" / "reviewer.parquet")
    assert gold.column_names == ["query", "product", "brand", "attributes"]


def test_what_is_written_is_not_written_again_unless_asked_for_otherwise(tmp_path: Path) -> None:
    write_demo(tmp_path, rows=1000)
    before = (tmp_path / "log.parquet").stat().st_mtime_ns
    write_demo(tmp_path, rows=1000)
    assert (tmp_path / "log.parquet").stat().st_mtime_ns == before
    write_demo(tmp_path, rows=1001)
    assert pq.read_metadata(tmp_path / "log.parquet").num_rows == 1001
    assert json.loads((tmp_path / "manifest.json").read_text())["rows"] == 1001
    assert not list(tmp_path.rglob("*.part"))


def test_the_catalogue_spells_its_terms_as_the_word_lists_do(shop: Shop) -> None:
    rows = shop.catalogue.to_pylist()
    assert len({r["id"] for r in rows}) == len(rows) == 3000
    assert len({r["title"] for r in rows}) == len(rows)
    for row in rows:
        assert row["product"] in PRODUCTS
        assert set(row["attributes"]) <= set(ATTRIBUTES)
        assert sorted(row["title"].lower().split()) == words_of(row)
    shelves = {}
    for row in rows:
        shelves.setdefault(row["brand"], set()).add(row["category"])
    assert len(shelves) == 150
    assert max(len(shelf) for shelf in shelves.values()) <= 3


def test_pool_queries_are_unique_and_in_normal_form(pool: list[dict]) -> None:
    queries = [row["query"] for row in pool]
    assert len(queries) == len(set(queries)) == 12_000
    for query in queries:
        assert query.isascii()
        assert query == " ".join(query.split()).casefold() != ""


def test_every_gold_term_is_canonical_and_every_gold_brand_is_in_the_catalogue(shop: Shop, pool: list[dict]) -> None:
    brands = set(shop.catalogue["brand"].to_pylist())
    for row in pool:
        assert row["brand"] in brands | {""}
        assert row["product"] in (*PRODUCTS, "")
        assert set(row["attributes"]) <= set(ATTRIBUTES)
        assert row["brand"] or row["product"] or row["attributes"]


def test_gold_attributes_come_in_the_order_of_the_query(pool: list[dict]) -> None:
    several = 0
    for row in pool:
        places = [row["query"].find(a) for a in row["attributes"]]
        if len(places) > 1 and -1 not in places and words_of(row) == sorted(row["query"].split()):
            several += 1
            assert places == sorted(places), row
    assert several > 100


def test_brands_are_asked_for_often_and_mostly_for_what_they_make(shop: Shop, pool: list[dict]) -> None:
    made = set(zip(shop.catalogue["brand"].to_pylist(), shop.catalogue["product"].to_pylist(), strict=True))
    asked = [(row["brand"], row["product"]) for row in pool if row["brand"] and row["product"]]
    assert 0.55 <= np.mean([row["brand"] != "" for row in pool]) <= 0.65
    assert 0.9 <= np.mean([pair in made for pair in asked]) < 1.0


def test_the_head_is_heavy_short_and_clean_and_the_tail_long_and_messy(log: pa.Table, pool: list[dict]) -> None:
    counts = Counter(" ".join(query.lower().split()) for query in log["query"].to_pylist())
    assert set(counts) <= {row["query"] for row in pool}
    top = sum(count for _, count in counts.most_common(120))
    assert top > 0.30 * log.num_rows
    assert len(counts) > 8000  # and yet most of the tail is seen
    clean = [words_of(row) == sorted(row["query"].split()) for row in pool]
    length = [len(row["query"]) for row in pool]
    assert np.mean(clean[:200]) > 0.95
    assert np.mean(clean[-6000:]) < 0.5
    assert np.mean(length[:200]) + 8 < np.mean(length[-6000:])


def test_every_kind_of_mess_occurs(pool: list[dict]) -> None:
    queries = {row["query"] for row in pool}
    plain = [row for row in pool if row["product"] and not row["brand"]]
    alone = [row for row in plain if not row["attributes"]]
    assert any(row["query"] == row["product"] + "s" for row in alone), "plural"
    assert any(row["query"] == row["product"].replace(" ", "") != row["product"] for row in alone), "missing space"
    assert any(f"org {row['product']}" in queries for row in alone), "abbreviation"
    assert any(row["query"] == f"{row['product']} organic" for row in plain), "word order"
    assert any(row["query"] == f"{row['product']} {row['brand']}" for row in pool if row["brand"]), "word order"
    units = [(a, row["query"]) for row in pool for a in row["attributes"] if a in SIZES]
    assert any(a.replace(" ", "") in query and a not in query for a, query in units), "unit"
    slips = [row["query"] for row in alone if row["query"] not in forms_without_slips(row["product"])]
    assert len(slips) > 300, "typos"


def forms_without_slips(product: str) -> list[str]:
    """The spellings of a product that take no slip of the fingers: those any generator state gives."""
    rngs = [np.random.Generator(np.random.PCG64(seed)) for seed in range(8)]
    return list(set.intersection(*({f for f, _ in surfaces(product, "product", rng)} for rng in rngs)))


def test_a_log_has_exactly_the_rows_asked_for_in_time_order(shop: Shop) -> None:
    for rows in (0, 1, 999, 20_000):
        log = make_log(shop, rows, days=2)
        assert log.num_rows == rows
        assert log.schema.field("time").type == pa.timestamp("s")
        assert log.schema.field("session").type == pa.int64()
        times = log["time"].to_numpy()
        assert (np.diff(times) >= np.timedelta64(0)).all()
    assert times[-1] - times[0] < np.timedelta64(2, "D")
    assert times[-1] - times[0] > np.timedelta64(47, "h")


def test_a_log_is_typed_carelessly_here_and_there(log: pa.Table) -> None:
    queries = log["query"].to_pylist()
    capitals = np.mean([query != query.lower() for query in queries])
    stray = np.mean([query != " ".join(query.split()) for query in queries])
    assert 0.04 < capitals < 0.06
    assert 0.02 < stray < 0.04


def test_asking_for_more_than_the_words_can_give_says_so() -> None:
    with pytest.raises(ValueError, match="at least one product a brand"):
        make_shop(brands=10, products=5)
    with pytest.raises(ValueError, match="cannot carry"):
        make_shop(brands=1, products=100_000, queries=10)
    with pytest.raises(ValueError, match="does not give 5000 different queries"):
        make_shop(brands=1, products=1, queries=5000)
