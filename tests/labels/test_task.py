import json
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from labels.errors import InputError
from labels.semantic_roles import SemanticRoles
from labels.task import MAX_ITEMS, Task

VALUES = st.text(st.characters(exclude_categories=()))


class Outfit(Task):
    """Find what the query says of clothes. Answer in JSON."""

    name: ClassVar[str] = "outfit"
    garment: str = Field(description="the piece of clothing")
    colours: list[str] = Field(description="its colours")


class OutfitReworded(Task):
    """Find what the query says of clothes. Answer in JSON."""

    name: ClassVar[str] = "outfit"
    garment: str = Field(description="the piece of clothing, in the singular")
    colours: list[str] = Field(description="its colours")


class OutfitOfOneColour(Task):
    """Find what the query says of clothes. Answer in JSON."""

    name: ClassVar[str] = "outfit"
    garment: str = Field(description="the piece of clothing")
    colours: str = Field(description="its colours")


def test_ten_lines_make_a_task_that_tells_parses_and_scores():
    assert Outfit.instruction() == (
        "Find what the query says of clothes. Answer in JSON.\ngarment: the piece of clothing\ncolours: its colours"
    )
    answer = Outfit.parse('{"garment":"Coat","colours":["Red","red",""," Dark  blue"]}')
    assert answer == Outfit(garment="coat", colours=["red", "dark blue"])
    assert answer.to_json() == '{"garment":"coat","colours":["red","dark blue"]}'
    assert answer.items() == {("garment", "coat"), ("colours", "red"), ("colours", "dark blue")}
    assert Outfit(garment="", colours=[]).items() == frozenset()


def test_the_schema_requires_every_field_in_order_and_forbids_others():
    assert Outfit.json_schema() == {
        "type": "object",
        "properties": {
            "garment": {"type": "string"},
            "colours": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_ITEMS},
        },
        "required": ["garment", "colours"],
        "additionalProperties": False,
    }
    assert list(SemanticRoles.json_schema()["properties"]) == ["product", "brand", "attributes"]


def test_the_version_changes_with_what_is_asked_and_with_nothing_else():
    assert Outfit.version() == Outfit.version()
    assert len({Outfit.version(), OutfitReworded.version(), OutfitOfOneColour.version()}) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("milk, please", "JSON"),
        ("", "JSON"),
        ('{"garment":"coat","colours":["red"]', "JSON"),
        ('["coat"]', "object"),
        ("null", "object"),
        ('{"garment":"coat"}', "colours: Field required"),
        ('{"garment":"coat","colours":[],"size":"xl"}', "size: Extra"),
        ('{"garment":null,"colours":[]}', "garment: Input should be a valid string"),
        ('{"garment":7,"colours":[]}', "garment: Input should be a valid string"),
        ('{"garment":["coat"],"colours":[]}', "garment: Input should be a valid string"),
        ('{"garment":"coat","colours":"red"}', "colours: Input should be a valid array"),
        ('{"garment":"coat","colours":["red",1]}', r"colours\.1: Input should be a valid string"),
    ],
)
def test_an_answer_that_breaks_the_schema_is_refused_naming_the_place(text, says):
    with pytest.raises(InputError, match=says):
        Outfit.parse(text)


@given(VALUES, VALUES, st.lists(VALUES, max_size=10))
def test_any_answer_survives_writing_and_reading(product, brand, attributes):
    answer = SemanticRoles(product=product, brand=brand, attributes=attributes).normalised()
    assert SemanticRoles.parse(answer.to_json()) == answer


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_foreign_text_and_foreign_json_are_refused_with_nothing_but_an_input_error(text):
    with pytest.raises(InputError):
        SemanticRoles.parse(text)
