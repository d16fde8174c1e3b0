import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from labels.embed import NgramEmbedder
from labels.errors import SettingsError
from labels.guardrails import Grounded, InTaxonomy, Length, Similar, check, check_all, guardrails_of, margins
from labels.semantic_roles import SemanticRoles
from labels.task import Task
from tests.labels.test_embed import MINILM
from tests.labels.test_task import Outfit

ROOT = Path(__file__).resolve().parents[2]


def roles(product="", brand="", attributes=()):
    return SemanticRoles(product=product, brand=brand, attributes=list(attributes))


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("oat milk", roles("oat milk")),
        ("oatmilk", roles("oat milk")),
        ("oat mlik", roles("oat milk")),
        ("oat mylk", roles("oat milk")),
        ("tomatoes", roles("tomato")),
        ("tomato", roles("tomatoes")),
        ("berries", roles("berry")),
        ("choc spread", roles("chocolate spread")),
        ("veg stock", roles("vegetable stock")),
        ("gf bread", roles("bread", attributes=["gluten free"])),
        ("verdant machne juice", roles("juice", "verdant machine")),
        ("verdantmachnejuice", roles("juice", "verdant machine")),
        ("juice verdant machine 1 l", roles("juice", "verdant machine", ["1 l"])),
        ("500ml water", roles("water", attributes=["500 ml"])),
    ],
)
def test_typos_plurals_abbreviations_and_missing_spaces_are_grounded(query, answer):
    assert check(answer, query) is None


@pytest.mark.parametrize(
    ("query", "answer", "field", "value"),
    [
        ("oat milk", roles("oat milk", "northwind"), "brand", "northwind"),
        ("oat milk", roles("television"), "product", "television"),
        ("oat milk", roles("milk", attributes=["oat", "organic"]), "attributes", "organic"),
        ("oat milk", roles("milk", attributes=["oat frozen"]), "attributes", "oat frozen"),  # every word counts
    ],
)
def test_what_neither_query_nor_facts_say_is_refused_with_figure_and_threshold(query, answer, field, value):
    refused = check(answer, query)
    assert (refused.guardrail, refused.field, refused.value) == ("grounded", field, value)
    assert refused.figure < refused.threshold == 0.75
    assert str(refused) == f"grounded: {field} {value!r} scores {refused.figure:.2f}, needs 0.75"


def test_a_fact_is_evidence_in_whatever_case_it_is_written():
    answer = roles("juice", "verdant machine")
    assert check(answer, "vm juice 2l") is None
    assert check(answer, "green juice").value == "verdant machine"
    assert check(answer, "green juice", ["VERDANT MACHINE | ORANGE JUICE"]) is None


def test_an_empty_answer_has_nothing_to_refuse_and_fields_without_guardrails_pass():
    assert check(roles(), "oat milk") is None
    assert check(Outfit(garment="coat", colours=["red"]), "milk") is None


class Strict(Task):
    """The same guardrail, at another threshold."""

    name: ClassVar[str] = "strict"
    product: Annotated[str, Grounded(threshold=0.9)] = Field(description="the thing wanted")


def test_the_threshold_is_the_tasks_to_choose():
    assert check(roles("oat mylk"), "oat milk") is None
    refused = check(Strict(product="oat mylk"), "oat milk")
    assert (refused.figure, refused.threshold) == (0.75, 0.9)
    assert check(Strict(product="oat milk"), "oat milk") is None


SHELVES = ["Dairy & Eggs", "Bakery", "Household"]


class Shop(Task):
    """Every guardrail, and one field with several."""

    name: ClassVar[str] = "shop"
    shelf: Annotated[str, InTaxonomy(SHELVES)] = Field(description="the shelf")
    rewrites: Annotated[list[str], Length(most=12), Similar(0.4)] = Field(description="other ways to ask")
    note: Annotated[str, Length(most=5), Grounded()] = Field(description="anything else")


def shop(shelf="", rewrites=(), note=""):
    return Shop(shelf=shelf, rewrites=list(rewrites), note=note).normalised()


def test_a_value_of_the_taxonomy_passes_in_whatever_case_and_another_is_refused_with_how_near_it_is():
    assert check(shop("DAIRY & eggs"), "milk") is None
    refused = check(shop("dairy and eggs"), "milk")
    assert (refused.guardrail, refused.field, refused.value) == ("in_taxonomy", "shelf", "dairy and eggs")
    assert 0.7 < refused.figure < refused.threshold == 1.0
    assert check(shop("car tyres"), "milk").figure < 0.5


def test_the_margin_is_that_of_the_value_that_passes_most_narrowly():
    answers = [shop(note="milk"), shop("bakery", ["milk"], "mlik"), shop("bakery"), shop(note="tea"), shop()]
    narrow, typo, *others, failing, empty = margins(answers, ["milk"] * 5, [[]] * 5)
    assert (narrow.guardrail, narrow.figure, narrow.threshold, narrow.share) == ("length", 4, 5, 0.2)
    assert (typo.guardrail, typo.field, typo.value, typo.figure, typo.share) == ("grounded", "note", "mlik", 0.75, 0)
    assert failing.guardrail == "grounded"
    assert failing.share < 0
    assert others == [None]
    assert empty is None
    assert margins([], [], []) == []


def test_a_margin_by_meaning_is_the_cosine_s_and_facts_are_evidence():
    alike, fact = margins([shop(rewrites=["oat milk"]), shop(note="tea")], ["oat milk", "hot"], [[], ["TEA | hot"]])
    assert (alike.guardrail, alike.figure, alike.share) == ("length", 8, 0.3333)
    assert (fact.guardrail, fact.share) == ("length", 0.4)
    (far,) = margins([shop(rewrites=["oat"])], ["oat milk"], [[]])
    cosine = float(np.prod([NgramEmbedder().embed([text])[0] for text in ("oat", "oat milk")], axis=0).sum())
    assert (far.guardrail, far.share) == ("similar", pytest.approx((cosine - 0.4) / 0.6, abs=1e-3))


def test_a_value_one_letter_off_a_very_long_one_still_scores_below_the_threshold():
    class Long(Task):
        name: ClassVar[str] = "long"
        shelf: Annotated[str, InTaxonomy(["a" * 5000])] = Field(description="the shelf")

    assert check(Long(shelf="a" * 4999), "milk").figure < 1


def task_with(guardrail, name="made"):
    class Made(Task):
        """A task of one field."""

        value: Annotated[str, guardrail] = Field(description="the value")

    Made.name = name
    return Made


def test_a_taxonomy_may_be_a_file_beside_the_task(tmp_path, monkeypatch):
    (tmp_path / "shelves.txt").write_text("\ufeffDairy & Eggs\n\n  Bakery \r\nFrühstück\n", encoding="utf-8")
    (tmp_path / "my_shop_task.py").write_text(
        "from typing import Annotated, ClassVar\nfrom pydantic import Field\nfrom labels.guardrails import InTaxonomy\n"
        "from labels.task import Task\nclass Shelf(Task):\n    'The shelf.'\n    name: ClassVar[str] = 'shelf'\n"
        "    shelf: Annotated[str, InTaxonomy('shelves.txt')] = Field(description='the shelf')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    shelf = importlib.import_module("my_shop_task").Shelf
    for value in ("dairy & eggs", "bakery", "frühstück", ""):
        assert check(shelf(shelf=value), "milk") is None
    assert check(shelf(shelf="household"), "milk").guardrail == "in_taxonomy"


def test_a_taxonomy_that_is_not_there_or_empty_is_said_before_anything_is_asked(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    for guardrail, says in (
        (InTaxonomy("nowhere.txt"), r"nowhere\.txt, one value a line"),
        (InTaxonomy(str(tmp_path / "latin.txt")), "UTF-8"),
        (InTaxonomy(str(tmp_path / "empty.txt")), "taxonomy is empty"),
        (InTaxonomy([]), "taxonomy is empty"),
    ):
        with pytest.raises(SettingsError, match=says):
            guardrails_of(task_with(guardrail))


def test_a_rewrite_far_from_the_query_is_refused_by_its_cosine():
    assert check(shop(rewrites=["oats milk", "milk oat"]), "oat milk") is None
    refused = check(shop(rewrites=["oats milk", "car tyres"]), "oat milk")
    assert (refused.guardrail, refused.value, refused.threshold) == ("similar", "car tyres", 0.4)
    near, far = NgramEmbedder().embed(["oat milk", "car tyres"])
    assert refused.figure == pytest.approx(float(near @ far), abs=1e-3)


def test_a_value_is_wholly_similar_to_itself_in_single_precision_too():
    task = task_with(Similar(1.0))
    queries = [f"query number {number} on oat milk" for number in range(300)]
    assert check_all([task(value=query) for query in queries], queries, [()] * 300) == [None] * 300


def test_similarity_is_by_the_embedder_the_guardrail_names():
    by_letters, by_meaning = task_with(Similar(0.5)), task_with(Similar(0.5, embedder=str(MINILM)))
    assert check(by_letters(value="couch"), "sofa").figure < 0.1
    assert check(by_meaning(value="couch"), "sofa") is None
    assert check(by_meaning(value="toothpaste"), "sofa").guardrail == "similar"


def test_length_counts_characters_and_says_how_many_are_allowed():
    assert check(shop(rewrites=["oat milk oat"]), "oat milk") is None
    refused = check(shop(rewrites=["oat milk oats"]), "oat milk")
    assert (refused.guardrail, refused.figure, refused.threshold) == ("length", 13, 12)
    assert str(refused) == "length: rewrites 'oat milk oats' has 13 characters, may have 12"
    assert len(str(check(shop(note="x" * 100_000), "milk"))) < 200


def test_the_first_field_and_its_first_guardrail_reject():
    refused = check(shop("tyres", ["car tyres", "a car with four tyres"], "unsaid"), "milk")
    assert (refused.field, refused.guardrail) == ("shelf", "in_taxonomy")
    refused = check(shop("", ["tyres for a car", "car tyres"], "unsaid"), "milk")
    assert (refused.guardrail, refused.value) == ("similar", "car tyres")  # values in alphabetical order
    assert check(shop(note="unsaid"), "milk").guardrail == "length"  # of one field, as they are named
    assert check(shop(note="other"), "milk").guardrail == "grounded"


def test_abstaining_passes_every_guardrail():
    assert check(shop(), "milk") is None
    assert check(shop(rewrites=["", " "]), "milk") is None


WORDS = st.sampled_from(["", "bakery", "milk", "oat milk", "a very long rewrite", "tyres"])


@given(st.lists(st.tuples(WORDS, st.lists(WORDS, max_size=3), WORDS, st.sampled_from(["milk", "bakery"])), max_size=6))
def test_many_answers_at_once_fare_as_each_alone(drawn):
    answers = [shop(shelf, rewrites, note) for shelf, rewrites, note, _ in drawn]
    queries = [query for *_, query in drawn]
    facts = [("Oat Milk | dairy",)] * len(drawn)
    alone = [check(answer, query, shown) for answer, query, shown in zip(answers, queries, facts, strict=True)]
    assert check_all(answers, queries, facts) == alone


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, 75, True, "0.5", None, float("nan")])
@pytest.mark.parametrize("guardrail", [Grounded, Similar])
def test_a_threshold_that_makes_no_sense_is_refused_where_it_is_written(guardrail, threshold):
    with pytest.raises(SettingsError, match="above 0 and at most 1"):
        guardrail(threshold)


@pytest.mark.parametrize("most", [0, -1, 2.5, True, "40", None])
def test_a_length_that_makes_no_sense_is_refused(most):
    with pytest.raises(SettingsError, match="whole number of characters"):
        Length(most)


@pytest.mark.parametrize("guardrail", [Grounded, InTaxonomy, Similar, Length])
def test_a_guardrail_named_without_its_brackets_is_an_error_not_ignored(guardrail):
    with pytest.raises(SettingsError, match=rf"field value: wanted {guardrail.__name__}\("):
        guardrails_of(task_with(guardrail))


def test_only_similarity_loads_an_embedder():
    code = (
        "import sys; from labels.guardrails import check; from labels.semantic_roles import SemanticRoles as T;"
        "check(T(product='milk', brand='', attributes=[]), 'milk'); print({'sklearn', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_an_unusable_guardrail_stops_a_night_before_it_starts(tmp_path):
    (tmp_path / "shop_without_shelves.py").write_text(
        "from typing import Annotated, ClassVar\nfrom pydantic import Field\nfrom labels.guardrails import InTaxonomy\n"
        "from labels.task import Task\nclass Shelf(Task):\n    'The shelf.'\n    name: ClassVar[str] = 'shelf'\n"
        "    shelf: Annotated[str, InTaxonomy('gone.txt')] = Field(description='the shelf')\n"
    )
    code = (
        "from flows.night import check_inputs; from flows.settings import load_settings;"
        "check_inputs(load_settings(changes={'task': 'shop_without_shelves:Shelf'}, environment={}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode
    assert "SettingsError: task shelf: InTaxonomy('gone.txt')" in done.stderr
