from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from labels.guardrails import Grounded, check
from labels.semantic_roles import SemanticRoles
from labels.task import Task
from tests.labels.test_task import Outfit


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
