import json
import random
from typing import Annotated, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from evals.active import active_sample
from labels.errors import InputError
from labels.guardrails import Length
from labels.semantic_roles import SemanticRoles
from labels.task import Task
from tests.labels.shop import label

SURE = {"product": 1.0, "brand": 1.0}


def roles(product="milk", brand="", attributes=()):
    return SemanticRoles(product=product, brand=brand, attributes=list(attributes))


def sure(number, answer=None, **other):
    query = other.pop("query", "acme oat milk")
    return label(number, query, value=(answer or roles()).to_json(), **{"confidence": SURE} | other)


def chosen(labels, size=100, task=SemanticRoles, **signals):
    given = {"traffic": {}, "last": {}, "student": {}, "quality": {}, "known": {}, "taken": ()}
    return active_sample(task, labels, size=size, **given | signals)


def reasons(*args, **signals):
    return {one.label.identity: one.reasons for one in chosen(*args, **signals)}


def test_a_label_nothing_speaks_against_is_not_chosen():
    assert chosen([sure(1)], student={"acme oat milk": roles()}, known={"product": ["milk"]}) == []


def test_the_least_sure_field_is_named():
    unsure = sure(1, confidence={"product": 0.95, "brand": 0.42, "attributes": 0.8})
    assert reasons([unsure, sure(2, confidence={})]) == {"id1": ("least sure of brand (0.42)",)}
    assert chosen([unsure])[0].score == 0.58


def test_another_answer_of_the_student_or_of_an_earlier_night_is_told_field_by_field():
    labels = [sure(1, roles("milk", "acme"), query="acme milk")]
    student = {"acme milk": roles("milk", "", ["oat", "big"])}
    last = {"acme milk": roles("oat milk", "acme").to_json()}
    assert reasons(labels, student=student, last=last)["id1"] == (
        "the student answers otherwise: no brand, attributes 'big' and 'oat'",
        "an earlier night answered otherwise: product 'oat milk'",
    )
    assert chosen(labels, last=last)[0].score == pytest.approx(2 / 3, abs=1e-4)


def test_the_same_values_in_another_order_are_the_same_answer():
    labels = [sure(1, roles(attributes=["oat", "acme"]))]
    assert chosen(labels, student={"acme oat milk": roles(attributes=["acme", "oat"])}) == []


def test_values_never_seen_before_are_new_but_not_of_a_field_nobody_answered_yet():
    labels = [sure(1, roles("milk", "acme", ["oat"])), sure(2, roles("milk", "verdant"), query="verdant milk")]
    known = {"brand": {"verdant"}, "attributes": ["oat"], "product": []}
    assert reasons(labels, known=known) == {"id1": ("new brand 'acme'",)}


def test_what_barely_passed_a_guardrail_is_chosen_with_figure_and_threshold():
    class Short(Task):
        """A short note."""

        name: ClassVar[str] = "short"
        note: Annotated[str, Length(most=10)] = Field(description="anything")

    notes = [label(1, value='{"note":"ten in all"}', confidence={}), label(2, value='{"note":"short"}', confidence={})]
    assert reasons(notes, task=Short) == {"id1": ("note 'ten in all' has 10 characters, may have 10",)}
    typed = [sure(1, roles("milk"), query="mlik", facts=()), sure(2, roles("milk"), query="milk")]
    assert reasons(typed) == {"id1": ("product 'milk' is grounded 0.75, needs 0.75",)}


def test_suspects_are_chosen_and_a_label_wanted_by_several_sources_keeps_every_reason():
    labels = [sure(1), sure(2, confidence={"brand": 0.5})]
    found = chosen(labels, quality={"id1": 0.7, "id2": 0.03}, known={"product": ["tea"]}, student={})
    assert found[0].reasons == (
        "least sure of brand (0.50)",
        "new product 'milk'",
        "other labels or the student contradict it (quality 0.03)",
    )
    assert found[0].score == 1
    assert found[1].reasons == ("new product 'milk'",)


def test_no_source_starves_another():
    unsure = [sure(number, confidence={"product": 0.01}) for number in range(50)]
    suspect = [sure(number) for number in range(50, 60)]
    new = [sure(60, roles("tea"), query="tea")]
    quality = dict.fromkeys((one.identity for one in suspect), 0.4)
    found = [
        one.label.identity for one in chosen([*unsure, *suspect, *new], 9, quality=quality, known={"product": ["milk"]})
    ]
    assert found == ["id0", "id60", "id50", "id1", "id51", "id10", "id52", "id11", "id53"]


def test_of_equally_doubtful_labels_the_busier_query_comes_first_and_traffic_weighs_but_not_alone():
    labels = [sure(number, query=f"milk {number}", confidence={"brand": 0.5}) for number in range(3)]
    labels.append(sure(3, query="milk 3", confidence={"brand": 0.89}))
    found = chosen(labels, traffic={"milk 2": 9.0, "milk 0": 5.0, "milk 3": 20.0})
    assert [one.label.identity for one in found] == ["id2", "id0", "id1", "id3"]


def test_only_accepted_labels_that_nobody_has_or_had_before_them():
    labels = [sure(number, confidence={"brand": 0.5}) for number in range(3)]
    labels += [
        sure(3, status="rejected", confidence={"brand": 0.1}),
        sure(4, status="failed", confidence={"brand": 0.1}),
    ]
    assert list(reasons(labels, taken=["id0"])) == ["id1", "id2"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**30), st.integers(0, 30))
def test_deterministic_whatever_the_order_and_never_more_than_asked_for(seed, size):
    rng = random.Random(seed)
    labels = [
        sure(number, query=f"milk {number}", confidence={"brand": rng.choice([0.2, 0.8, 1.0])}) for number in range(25)
    ]
    signals = {
        "traffic": {one.query: rng.choice([1.0, 7.0]) for one in labels},
        "quality": {one.identity: rng.random() for one in labels},
        "student": {one.query: roles(rng.choice(["milk", "tea"])) for one in labels},
    }
    found = chosen(labels, size, **signals)
    assert found == chosen(rng.sample(labels, len(labels)), size, **signals)
    assert len({one.label.identity for one in found}) == len(found) <= size
    assert all(one.reasons and 0 < one.score <= 1 for one in found)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        chosen([], -1)
    with pytest.raises(InputError, match="product"):
        chosen([sure(1)], last={"acme oat milk": json.dumps({"brand": ""})})
