import json
import random
from statistics import mean
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from demo.shop import make_shop
from evals.suspects import suspects
from labels.errors import InputError
from labels.guardrails import InTaxonomy, Similar
from labels.semantic_roles import SemanticRoles
from labels.task import Task
from tests.labels.shop import label

SHELVES = {"milk": "dairy", "cheese": "dairy", "bread": "bakery", "rolls": "bakery", "soap": "household"}


class Shelf(Task):
    """Find the shelf."""

    name: ClassVar[str] = "shelf"
    shelf: Annotated[str, InTaxonomy(sorted({*SHELVES.values(), "garden"}))] = Field(description="the shelf")
    also: Annotated[list[str], InTaxonomy(["cold", "dry"])] = Field(description="how it is kept")
    rewrite: Annotated[str, Similar(0.1)] = Field(description="another way to ask")


@pytest.fixture(scope="module")
def mislabelled():
    """A shop's labels, one in twenty with product and brand swapped; the identities of those, and the right answers."""
    rng = random.Random(0)
    labels, planted, right = [], set(), {}
    for place, row in enumerate(make_shop(queries=2000).pool.to_pylist()):
        right[row["query"]] = SemanticRoles(**{name: row[name] for name in SemanticRoles.model_fields})
        answer = right[row["query"]].model_dump()
        if row["product"] and row["brand"] and rng.random() < 0.12:
            answer |= {"product": row["brand"], "brand": row["product"]}
            planted.add(f"id{place}")
        labels.append(label(place, row["query"], value=json.dumps(answer)))
    assert 0.03 < len(planted) / len(labels) < 0.07
    return labels, planted, right


def ranked(quality, planted):
    """The chance that a planted error ranks below a label without one."""
    from sklearn.metrics import roc_auc_score

    return roc_auc_score([identity in planted for identity in quality], [-one for one in quality.values()])


def test_swapped_values_rank_below_the_rest_by_the_neighbours_alone(mislabelled):
    labels, planted, _ = mislabelled
    quality = suspects(SemanticRoles, labels, {})
    assert quality.keys() == {one.identity for one in labels}
    assert all(0 <= one <= 1 for one in quality.values())
    assert ranked(quality, planted) > 0.9


def test_a_student_that_contradicts_lowers_the_quality_and_one_that_agrees_raises_it(mislabelled):
    labels, planted, right = mislabelled
    alone = suspects(SemanticRoles, labels, {})
    some = {one.query: right[one.query] for one in labels[::2]}
    blended = suspects(SemanticRoles, labels, some)
    change = {one.identity: blended[one.identity] - alone[one.identity] for one in labels}
    asked = {one.identity for one in labels[::2]}
    assert {change[identity] for identity in change.keys() - asked} == {0}
    assert max(change[identity] for identity in asked & planted) < 0.1
    assert mean(change[identity] for identity in asked & planted) < 0
    assert mean(change[identity] for identity in asked - planted) > 0.05


def test_the_same_whatever_the_order_and_only_accepted_labels(mislabelled):
    labels, _, _ = mislabelled
    few = labels[:200]
    turned = [*random.Random(0).sample(few, len(few)), label(9000, status="failed", value=None)]
    assert suspects(SemanticRoles, turned, {}) == suspects(SemanticRoles, few, {})


def shelf_labels():
    rng = random.Random(0)
    labels = []
    for place in range(300):
        thing = rng.choice(list(SHELVES))
        also = ["cold"] if SHELVES[thing] == "dairy" else []
        value = {"shelf": SHELVES[thing], "also": also, "rewrite": "anything"}
        labels.append(label(place, f"{thing} {rng.choice(['big', 'small', 'cheap'])} {place}", value=json.dumps(value)))
    return labels


def test_a_value_of_a_closed_set_is_suspect_where_like_queries_have_another():
    labels = shelf_labels()
    wrong = [("shelf", "garden"), ("shelf", ""), ("also", ["dry"]), ("also", ["cold", "dry"])]
    for place, (field, value) in enumerate(wrong):
        changed = json.dumps(json.loads(labels[place].value) | {field: value})
        labels[place] = label(place, labels[place].query, value=changed)
    quality = suspects(Shelf, labels, {})
    assert max(quality[f"id{place}"] for place in range(4)) < 0.2
    assert sum(one < 0.2 for one in quality.values()) == 4


def test_a_student_s_value_that_no_label_has_counts_against_the_label():
    labels = shelf_labels()
    parsed = Shelf.parse(labels[0].value)
    alone = suspects(Shelf, labels, {})
    against = suspects(Shelf, labels, {labels[0].query: parsed.model_copy(update={"shelf": "garden"})})
    assert against["id0"] == pytest.approx(alone["id0"] / 2)
    assert {k: v for k, v in against.items() if k != "id0"} == {k: v for k, v in alone.items() if k != "id0"}


def test_few_labels_and_labels_all_alike_are_not_suspect():
    assert suspects(SemanticRoles, [], {}) == {}
    assert suspects(SemanticRoles, [label(1)], {}) == {"id1": 1.0}
    alike = [label(number, query="milk") for number in range(20)]
    assert set(suspects(SemanticRoles, alike, {}).values()) == {1.0}


def test_a_value_that_breaks_the_schema_is_refused():
    with pytest.raises(InputError, match="brand"):
        suspects(SemanticRoles, [label(number, value='{"product":"milk"}') for number in range(9)], {})
