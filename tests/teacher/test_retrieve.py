import numpy as np
import pytest

from labels.files import MANIFEST, read_manifest
from teacher.catalogue import fact_of
from teacher.embed import DIMENSIONS, embed, fit_idf
from teacher.retrieve import FactIndex, build_index, load_index

BRANDS = ["verdant machine", "northwind", "kettle & crane", "blue heron farm", "sunday pantry", "arctic fern"]
PRODUCTS = ["oat milk", "orange juice", "tomato soup", "corn flakes", "olive oil"]
FACTS = [fact_of(brand, product, "") for brand in BRANDS for product in PRODUCTS]


@pytest.mark.parametrize(
    ("typed", "brand"),
    [
        ("verdant machine juice", "verdant machine"), ("verdnat machin juice", "verdant machine"),
        ("verdantmachine", "verdant machine"), ("nortwind oat mlik", "northwind"), ("kettle and crane oil", "kettle & crane"),
        ("sundaypantry flakes", "sunday pantry"), ("artic ferns soup", "arctic fern"),
    ],
)  # fmt: skip
def test_a_brand_is_found_however_it_is_typed(typed, brand):
    best = FactIndex.of(FACTS).search([typed], 1)[0][0]
    assert best.split(" | ")[0] == brand


def test_the_exact_product_of_the_brand_comes_first_and_the_best_before_the_rest():
    found = FactIndex.of(FACTS).search(["arctic fern olive oil"], 3)[0]
    assert found[0] == "arctic fern | olive oil"
    assert len(set(found)) == 3


def test_no_facts_more_facts_than_there_are_and_no_queries():
    index = FactIndex.of(FACTS[:2])
    assert index.search(["milk", "juice"], 0) == [[], []]
    assert [len(lines) for lines in index.search(["milk", "", "\N{GRINNING FACE}"], 5)] == [2, 2, 2]
    assert index.search([], 3) == []


def test_vectors_have_length_one_and_a_text_without_letters_none():
    texts = ["oat milk", "verdant machine", ""]
    lengths = np.linalg.norm(embed(texts, fit_idf(texts)), axis=1)
    assert embed(texts, fit_idf(texts)).shape == (3, DIMENSIONS)
    assert lengths == pytest.approx([1, 1, 0])


def test_a_rare_word_weighs_more_than_one_every_fact_has():
    facts = [fact_of("", f"organic whole milk {number}", "") for number in range(50)] + [fact_of("", "tea", "")]
    assert FactIndex.of(facts).search(["organic whole milk tea"], 1) == [[" | tea"]]


def test_an_index_is_built_once_for_the_same_facts_and_again_when_one_changes(tmp_path):
    folder, built = build_index(FACTS, tmp_path)
    assert built
    assert build_index(FACTS, tmp_path) == (folder, False)
    changed = [*FACTS[:-1], fact_of("arctic fern", "olive oil 1 l", "")]
    other, built = build_index(changed, tmp_path)
    assert built
    assert other != folder
    assert load_index(other).search(["arctic fern olive oil 1 l"], 1) == [["arctic fern | olive oil 1 l"]]
    queries = ["nortwind oat mlik", "verdant machine"]
    assert load_index(folder).search(queries, 3) == FactIndex.of(FACTS).search(queries, 3)


def test_an_index_without_its_manifest_is_built_again(tmp_path):
    folder, _ = build_index(FACTS, tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert max(times, key=times.get) == MANIFEST
    (folder / MANIFEST).unlink()
    (folder / "facts.faiss").write_bytes(b"half")
    assert build_index(FACTS, tmp_path) == (folder, True)
    assert read_manifest(folder)["facts"] == len(FACTS)
    assert load_index(folder).search(["nortwind"], 1)[0][0].startswith("northwind")
