import json
import math
from typing import Annotated, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from labels.guardrails import Similar, check
from labels.records import Example
from labels.semantic_roles import SemanticRoles
from labels.task import Task
from teacher.answers import labels_of
from teacher.engine import Completion, Sample
from teacher.plan import Shown, plan

WORDS = st.sampled_from(["", "oat", "milk", "oat milk", "northwind", "organic"])
ANSWERS = st.builds(SemanticRoles, product=WORDS, brand=WORDS, attributes=st.lists(WORDS.filter(bool), max_size=2))
ANSWERS = ANSWERS.map(lambda answer: answer.normalised().to_json())
HALF = math.log(0.5)
LOGPROBS = st.floats(-9, 0)


def roles(product="", brand="", *attributes):
    return SemanticRoles(product=product, brand=brand, attributes=list(attributes)).to_json()


def sample(text, logprob=HALF, finished=True, told=True):
    """One answer, every character a token of this log-probability; none where the engine tells none."""
    return Sample(text, tuple((char, logprob) for char in text) if told else (), finished)


def label(*samples, query="oat milk", task=SemanticRoles, facts=(), **completion):
    [request] = plan(task, [query], [Shown(facts)], "m")
    [made] = labels_of(task, [request], [Completion(request.identity, samples, **completion)], "m", "n1")
    return made


def test_a_good_answer_is_accepted_with_where_it_came_from():
    shown = Shown(("northwind | oat milk",), (0.8,), (Example("oatmilk", roles("oat milk"), 0.9),))
    requests = plan(SemanticRoles, ["oat milk"], [shown], "teacher")
    completion = Completion(requests[0].identity, (sample(roles("oat milk")),), 30, 20, 8)
    [made] = labels_of(SemanticRoles, requests, [completion], "teacher", "n1")
    assert (made.status, made.value, made.raw) == ("accepted", roles("oat milk"), roles("oat milk"))
    assert (made.identity, made.query, made.prompt) == (requests[0].identity, "oat milk", requests[0].prompt)
    assert (made.facts, made.scores, made.examples) == (shown.facts, shown.scores, shown.examples)
    assert (made.task, made.task_version) == ("semantic_roles", SemanticRoles.version())
    assert (made.model, made.night) == ("teacher", "n1")
    assert (made.tokens_in, made.tokens_cached, made.tokens_out, made.attempts, made.samples) == (30, 20, 8, 1, 1)
    assert made.confidence == {"product": 0.5, "brand": 0.5, "attributes": 0.5}
    assert (made.reason, made.guardrail, made.figure, made.threshold, made.agreement) == ("", "", None, None, {})


def test_every_request_gets_the_label_of_its_own_completion():
    queries = [f"milk {number}" for number in range(50)]
    requests = plan(SemanticRoles, queries, [Shown()] * 50, "m")
    texts = ["sorry" if number % 3 == 0 else roles(f"milk {number}", "acme" * (number % 2)) for number in range(50)]
    done = [Completion(r.identity, (sample(text),)) for r, text in zip(requests, texts, strict=True)]
    made = labels_of(SemanticRoles, requests, done, "m", "n1")
    assert [one.query for one in made] == queries
    assert [one.raw for one in made] == texts
    statuses = ["failed" if n % 3 == 0 else "rejected" if n % 2 else "accepted" for n in range(50)]
    assert [one.status for one in made] == statuses


def test_a_rejected_label_carries_its_guardrail_figure_and_threshold():
    made = label(sample(roles("oat milk", "northwind")))
    refused = check(SemanticRoles.parse(made.value), "oat milk")
    assert made.status == "rejected"
    assert made.value == roles("oat milk", "northwind")
    assert (made.guardrail, made.figure, made.threshold) == ("grounded", refused.figure, 0.75)
    assert made.reason == str(refused)
    assert made.confidence == {"product": 0.5, "brand": 0.5, "attributes": 0.5}


def test_facts_are_evidence_for_the_guardrails():
    assert label(sample(roles("oat milk", "northwind")), facts=("Northwind | oat milk",)).status == "accepted"


def test_an_empty_answer_is_an_answer():
    assert (label(sample(roles())).status, label(sample(roles())).value) == ("accepted", roles())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sample(roles("oat milk")[:20], finished=False), "truncated after 20 tokens"),
        (sample(roles("oat milk"), finished=False), f"truncated after {len(roles('oat milk'))} tokens"),
        (sample(roles("oat milk"), finished=False, told=False), "truncated at its budget"),
        (sample("I'd say milk."), "JSON"),
        (sample(""), "JSON"),
        (sample('{"product":"milk","brand":7,"attributes":[]}'), "brand"),
        (sample('{"product":"milk"}'), "brand"),
        (sample('{"brand":"","product":"oat milk","attributes":[]}'), "in the order product, brand, attributes"),
        (sample('{"brand":"","product":"oat milk","attributes":[]}', told=False), "in the order"),
    ],
)
def test_what_is_no_answer_is_failed_with_the_reason_and_what_was_said(answer, reason):
    made = label(answer)
    assert (made.status, made.value, made.raw, made.confidence) == ("failed", None, answer.text, {})
    assert reason in made.reason
    again = label(answer, attempts=2)
    assert reason in again.reason
    assert "second attempt, with a larger budget" in again.reason
    assert "second" not in made.reason


def test_a_prompt_the_engine_refuses_is_failed_with_its_error():
    made = label(error="the prompt has 9,000 tokens, the model takes 4,096")
    assert (made.status, made.value, made.raw) == ("failed", None, "")
    assert made.reason == "the prompt has 9,000 tokens, the model takes 4,096"


def test_a_completion_without_any_answer_is_failed_not_empty():
    assert (label().status, label().value, label().reason) == ("failed", None, "the engine gave no answer")


def test_of_several_useless_samples_the_first_is_kept_and_all_are_counted():
    made = label(sample("first"), sample("second"), sample(roles("milk"), finished=False))
    assert (made.status, made.raw, made.samples) == ("failed", "first", 0)
    assert "any other of 3 samples" in made.reason


def test_useless_samples_do_not_vote():
    made = label(sample("sorry"), sample(roles("milk")), sample(roles("oat milk")), sample(roles("oat milk")))
    assert (made.value, made.samples) == (roles("oat milk"), 3)
    assert made.agreement == {"product": 0.6667, "brand": 1.0, "attributes": 1.0}


def test_the_guardrails_come_before_agreement_and_agreement_before_probability():
    invented, plain, sure = roles("oat milk", "northwind"), roles("oat milk"), roles("milk")
    made = label(sample(invented), sample(invented), sample(invented), sample(plain, -8.0))
    assert (made.status, made.value) == ("accepted", plain)
    made = label(sample(sure, -0.01), sample(plain, -3.0), sample(plain, -2.0))
    assert (made.value, made.confidence["brand"]) == (plain, 0.1353)  # of the two that agree, the likelier: e^-2
    made = label(sample(plain, -2.0), sample(sure, -1.0))
    assert made.value == sure


def test_equals_are_settled_by_who_came_first():
    assert label(sample(roles("milk")), sample(roles("oat milk"))).value == roles("milk")
    assert label(sample(roles("oat milk")), sample(roles("milk"))).value == roles("oat milk")


def test_confidence_is_the_probability_times_the_agreement():
    made = label(*[sample(roles("oat milk"))] * 3, sample(roles("milk"), -9.0))
    assert made.agreement == {"product": 0.75, "brand": 1.0, "attributes": 1.0}
    assert made.confidence == {"product": 0.375, "brand": 0.5, "attributes": 0.5}


def test_without_log_probabilities_confidence_is_the_agreement_and_of_one_sample_nothing():
    said = [sample(roles(product), told=False) for product in ("oat milk", "oat milk", "milk", "oat milk")]
    assert label(*said).confidence == {"product": 0.75, "brand": 1.0, "attributes": 1.0}
    assert label(said[0]).confidence == {}
    assert label(said[0]).status == "accepted"


def test_the_order_of_a_list_is_no_disagreement():
    made = label(sample(roles("", "", "oat", "milk")), sample(roles("", "", "milk", "oat")))
    assert made.agreement["attributes"] == 1.0


@given(st.lists(st.tuples(ANSWERS, LOGPROBS), min_size=1, max_size=6))
def test_a_rejected_sample_is_never_kept_where_an_accepted_one_is_there(drawn):
    made = label(*[sample(text, logprob) for text, logprob in drawn])
    passing = {text for text, _ in drawn if check(SemanticRoles.parse(text), "oat milk") is None}
    assert made.status == ("accepted" if passing else "rejected")
    assert made.value in (passing or {text for text, _ in drawn})


@given(st.lists(st.tuples(ANSWERS, LOGPROBS, st.booleans(), st.booleans()), max_size=5))
def test_confidence_and_agreement_are_shares_and_only_of_what_was_kept(drawn):
    samples = [sample(text, logprob, finished, told) for text, logprob, finished, told in drawn]
    made = label(*samples)
    usable = [one for one in samples if one.finished]
    assert made.samples == len(usable)
    assert (made.status == "failed") == (not usable) == (made.value is None)
    assert set(made.agreement) == (set(SemanticRoles.model_fields) if len(usable) > 1 else set())
    assert all(1 / len(usable) - 1e-4 <= share <= 1 for share in made.agreement.values())
    assert all(0 <= share <= 1 for share in made.confidence.values())
    assert not made.confidence or set(made.confidence) == set(SemanticRoles.model_fields)


class Shelf(Task):
    """Say on which shelf it lies."""

    name: ClassVar[str] = "shelf"
    shelf: Annotated[str, Similar(0.5)] = Field(description="the shelf")


def test_similarity_is_checked_for_every_sample_of_a_chunk():
    requests = plan(Shelf, ["oat milk", "soap"], [Shown(), Shown()], "m")
    said = [["milk", "oat milk", "oat milk"], ["tyres"]]
    done = [
        Completion(request.identity, tuple(sample(json.dumps({"shelf": shelf})) for shelf in shelves))
        for request, shelves in zip(requests, said, strict=True)
    ]
    kept, refused = labels_of(Shelf, requests, done, "m", "n")
    assert (kept.status, json.loads(kept.value)["shelf"]) == ("accepted", "oat milk")
    assert (refused.status, refused.guardrail) == ("rejected", "similar")


def test_a_completion_of_another_request_is_never_taken_for_this_ones():
    requests = plan(SemanticRoles, ["milk", "tea"], [Shown(), Shown()], "m")
    done = [Completion(request.identity, (sample(roles()),)) for request in requests]
    for wrong in (done[::-1], done[:1]):
        with pytest.raises(ValueError, match=r"another request|shorter"):
            labels_of(SemanticRoles, requests, wrong, "m", "n")
