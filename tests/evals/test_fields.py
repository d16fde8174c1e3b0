from evals.fields import fields_of, values_by_field
from labels.semantic_roles import SemanticRoles
from tests.labels.test_guardrails import SHELVES, Shop
from tests.labels.test_task import Outfit


def test_guardrails_tell_words_of_the_query_a_closed_set_and_free_text_apart():
    found = fields_of(Shop)
    assert (found.worded, found.free) == (("note",), ("rewrites",))
    assert found.closed == {"shelf": tuple(sorted(shelf.lower() for shelf in SHELVES))}
    assert fields_of(SemanticRoles).worded == ("product", "brand", "attributes")
    assert fields_of(Outfit).worded == ("garment", "colours")


def test_values_by_field_keep_their_order_and_leave_empty_fields_out():
    answer = SemanticRoles(product="milk", brand="", attributes=["oat", "big"])
    assert values_by_field(answer) == {"product": ["milk"], "attributes": ["oat", "big"]}
