import pytest

from evals.slices import SEEN, UNSEEN, length_of, novelty, slices
from labels.semantic_roles import SemanticRoles


def roles(product="", brand="", *attributes):
    return SemanticRoles(product=product, brand=brand, attributes=list(attributes))


MILK, TEA = roles("milk"), roles("tea")


@pytest.mark.parametrize(
    ("query", "length"),
    [
        ("tea", "1 word"),
        ("oat milk", "2-3 words"),
        ("a b c", "2-3 words"),
        ("a b c d", "4-5 words"),
        ("a b c d e f", "6+ words"),
    ],
)
def test_length_is_in_words(query, length):
    assert length_of(query) == length


def test_a_value_is_unseen_unless_training_showed_it_in_that_field():
    seen = {("product", "milk"), ("brand", "acme")}
    golds = [roles("milk", "acme"), roles("milk", "zen"), roles("acme"), roles()]
    assert novelty(golds, seen) == [SEEN, UNSEEN, UNSEEN, ""]
    assert novelty(golds, seen, "brand") == [SEEN, UNSEEN, "", ""]


def test_each_query_is_in_one_slice_of_a_property_and_in_none_without_a_value():
    student = [(MILK, MILK)] * 6 + [(TEA, MILK)] * 4
    teacher = [(MILK, MILK)] * 10
    groups = {"traffic": ["tail"] * 4 + ["head"] * 6, "brand": ["seen"] * 3 + [""] * 7}
    found = {(one.by, one.value): one for one in slices(groups, student, teacher)}
    assert list(found) == [("traffic", "head"), ("traffic", "tail"), ("brand", "seen")]
    head = found["traffic", "head"]
    assert (head.student.queries, head.student.f1, head.teacher.f1) == (6, pytest.approx(1 / 3), 1)
    assert head.difference[0] <= -2 / 3 <= head.difference[1]
    assert found["traffic", "tail"].student.f1 == 1
    assert found["brand", "seen"].student.queries == 3


def test_without_a_teacher_there_is_no_difference():
    (one,) = slices({"length": ["1 word"] * 3}, [(MILK, MILK)] * 3, None)
    shown = one.to_json()
    assert (shown["teacher"], shown["difference"], shown["queries"], shown["student"]["f1"]) == (None, None, 3, 1.0)
