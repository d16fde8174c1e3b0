import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.confidence import field_confidence, value_spans
from labels.semantic_roles import SemanticRoles

TEXT = st.text()
FORCED = 0.0


def test_only_the_tokens_that_spell_the_value_count():
    pieces = [
        ('{"product":"', FORCED), ("oat", math.log(0.9)), (" milk", math.log(0.4)), ('","brand":"', FORCED),
        ("arla", math.log(0.5)), ('","attributes":["', FORCED), ("1 l", math.log(0.7)), ('"]}', FORCED),
    ]  # fmt: skip
    text = "".join(piece for piece, _ in pieces)
    assert field_confidence(SemanticRoles, text, pieces) == {
        "product": pytest.approx(math.sqrt(0.9 * 0.4), abs=1e-4), "brand": 0.5, "attributes": 0.7,
    }  # fmt: skip


def test_an_empty_value_is_as_sure_as_the_token_that_closes_it():
    pieces = [
        ('{"product":"', FORCED), ("milk", FORCED), ('","brand":"', math.log(0.8)), ('","attributes":', math.log(0.6)),
        ("[]", math.log(0.3)), ("}", FORCED),
    ]  # fmt: skip
    text = "".join(piece for piece, _ in pieces)
    found = field_confidence(SemanticRoles, text, pieces)
    assert found["brand"] == pytest.approx(math.sqrt(0.8 * 0.6), abs=1e-4)  # `""` is spelled by two tokens here
    assert found["attributes"] == 0.3


def test_a_list_of_several_values_counts_all_of_them():
    pieces = [
        ('{"product":"', 0.0), ("x", 0.0), ('","brand":"', 0.0), ("y", 0.0), ('","attributes":["', 0.0),
        ("organic", math.log(0.9)), ('","', math.log(0.5)), ("1 l", math.log(0.8)), ('"]}', 0.0),
    ]  # fmt: skip
    text = "".join(piece for piece, _ in pieces)
    expected = (0.9 * 0.5 * 0.8) ** (1 / 3)
    assert field_confidence(SemanticRoles, text, pieces)["attributes"] == pytest.approx(expected, abs=1e-4)


@given(TEXT, TEXT, st.lists(TEXT, max_size=4), st.booleans(), st.booleans())
def test_the_span_of_each_value_is_found_whatever_it_holds(product, brand, attributes, escaped, spaced):
    values = {"product": product, "brand": brand, "attributes": attributes}
    text = json.dumps(values, ensure_ascii=escaped, separators=(", ", ": ") if spaced else (",", ":"))
    spans = value_spans(SemanticRoles, text)
    for name, value in values.items():
        shown = text[slice(*spans[name])]
        if name != "attributes":
            assert json.loads(shown if not value else f'"{shown}"') == value
        else:
            assert json.loads(shown if value in ([], [""]) else f'["{shown}"]') == value


@given(TEXT, TEXT, st.lists(TEXT, max_size=3), st.data())
def test_confidence_is_between_0_and_1_however_the_text_is_cut_into_tokens(product, brand, attributes, data):
    text = SemanticRoles(product=product, brand=brand, attributes=attributes).to_json()
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=9))})
    chance = st.floats(-20, 0)
    pieces = [(text[a:b], data.draw(chance)) for a, b in itertools.pairwise(cuts)]
    found = field_confidence(SemanticRoles, text, pieces)
    assert list(found) == ["product", "brand", "attributes"]
    assert all(0 <= figure <= 1 for figure in found.values())


def test_tokens_that_are_not_all_there_give_no_confidence():
    assert field_confidence(SemanticRoles, SemanticRoles(product="a", brand="b", attributes=["c"]).to_json(), []) == {
        "product": 0.0, "brand": 0.0, "attributes": 0.0,
    }  # fmt: skip


def test_spans_are_found_around_white_space_of_any_kind():
    text = '{ "product" : "oat milk",\n  "brand":\t"",\n  "attributes" : ["1 l"] }'
    spans = value_spans(SemanticRoles, text)
    assert [text[slice(*spans[name])] for name in spans] == ["oat milk", '""', "1 l"]


def test_fields_in_another_order_are_an_error_that_says_so():
    text = '{"brand":"northwind","product":"milk","attributes":[]}'
    with pytest.raises(ValueError, match="in the order product, brand, attributes; brand is not in its place"):
        value_spans(SemanticRoles, text)


def test_special_tokens_that_are_no_part_of_the_text_do_not_shift_what_follows():
    pieces = [
        ('{"product":"', FORCED), ("oat", math.log(0.9)), ("<|assistant|>", math.log(0.1)), (" milk", math.log(0.9)),
        ('","brand":"', FORCED), ("arla", math.log(0.5)), ('","attributes":["', FORCED), ("1 l", math.log(0.7)),
        ('"]}', FORCED), ("<|eot_id|>", FORCED),
    ]  # fmt: skip
    text = "".join(piece for piece, _ in pieces if "|" not in piece)
    found = field_confidence(SemanticRoles, text, pieces)
    assert (found["brand"], found["attributes"]) == (0.5, 0.7)
    assert found["product"] == pytest.approx((0.9 * 0.1 * 0.9) ** (1 / 3), abs=1e-4)  # it was drawn within the value
