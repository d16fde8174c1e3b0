import asyncio

import pytest

from labels.errors import EngineError
from labels.semantic_roles import SemanticRoles
from student.sampling import Best, Sampling, best, request, sample_all
from tests.teacher.hostile import asked, choice, completion, hostile, reply

THREE = Sampling(samples=3, temperature=0.7, max_tokens=32)


def roles(product, brand=""):
    return SemanticRoles(product=product, brand=brand, attributes=[]).to_json()


def test_the_best_sample_passes_the_guardrails_then_is_said_most_then_is_surest():
    milk, oat, invented = roles("oat milk"), roles("milk", "oat"), roles("rye bread")
    assert best(SemanticRoles, "oat milk", [(oat, 0.99), (milk, 0.5), (milk, 0.7)], 3) == Best(milk, 2 / 3, 0.4)
    assert best(SemanticRoles, "oat milk", [(oat, 0.9), (milk, 0.8)], 2) == Best(oat, 0.5, 0.45)
    assert best(SemanticRoles, "oat milk", [(invented, 0.99), (invented, 0.99), (milk, 0.1)], 3).value == milk
    assert best(SemanticRoles, "oat milk", [(invented, 0.99)], 1) is None
    assert best(SemanticRoles, "oat milk", [], 3) is None


def test_samples_that_were_of_no_use_lower_the_confidence():
    assert best(SemanticRoles, "oat milk", [(roles("oat milk"), 1.0)], 4) == Best(roles("oat milk"), 0.25, 0.25)


def test_the_server_is_asked_for_several_answers_of_the_tasks_form_the_same_ones_each_time():
    body = request("student-1", SemanticRoles, "oat milk", THREE)
    assert (body["n"], body["temperature"], body["max_tokens"], body["logprobs"]) == (3, 0.7, 32, True)
    assert body["response_format"]["json_schema"]["schema"] == SemanticRoles.json_schema()
    assert body == request("student-1", SemanticRoles, "oat milk", THREE)
    assert body["seed"] != request("student-1", SemanticRoles, "rye", THREE)["seed"]


def sample(act, *queries):
    done = []
    with hostile(act) as server:
        url = server.url.removesuffix("/v1")
        found = asyncio.run(sample_all(url, "m", SemanticRoles, queries, THREE, 4, done.append))
    assert len(done) == len(queries)
    return dict(zip(queries, found, strict=True))


def test_each_query_gets_the_best_of_what_the_server_says():
    def act(handler, body, before):
        query = asked(body)
        cut = choice(roles(query), finish="length")
        said = {
            "oat milk": [choice(roles("oat milk")), choice("no JSON"), choice(roles("oat milk"))],
            "rye": [cut, cut, cut],
        }
        reply(handler, 200, completion(*said[query]))

    found = sample(act, "oat milk", "rye")
    assert found["oat milk"].value == roles("oat milk")
    assert found["oat milk"].agreement == pytest.approx(2 / 3)
    assert 0.5 < found["oat milk"].confidence < 2 / 3
    assert found["rye"] is None


def test_a_server_that_fails_on_more_than_a_tenth_is_no_source_of_samples():
    def act(handler, body, before):
        failing = asked(body) in ("q0", "q1")
        reply(handler, 500 if failing else 200, completion(*[choice(roles(asked(body)))] * 3))

    with pytest.raises(EngineError, match="gave no samples of 2 of 10 queries, first with: HTTPStatusError"):
        sample(act, *(f"q{number}" for number in range(10)))
    found = sample(act, *(f"q{number}" for number in range(1, 12)))
    assert found["q1"] is None
    assert found["q2"].value == roles("q2")
