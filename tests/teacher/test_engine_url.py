"""The engine behind a URL: against vLLM's own server, and against one on its worst days."""

import json
import threading
import time
from contextlib import suppress
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from demo.shop import make_shop
from labels.confidence import field_confidence
from labels.errors import EngineError, InputError, SettingsError
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from labels.task import Task
from teacher.chat_answer import read_completion
from teacher.engine import IN_FLIGHT, Prompt, Sampling
from teacher.engine_url import PLAIN_QUERY, UrlEngine
from tests.teacher.hostile import asked, choice, completion, cuts, fails, hangs, hostile, reply, roles, says, well

KEY = "sk-very-secret-0123456789"


def engine(url, samples=1, concurrency=8, deadline=20.0, key=None, model="teacher"):
    return UrlEngine(url, model, None, Sampling(64, samples=samples), concurrency, deadline, key)


def prompt(query, max_tokens=64):
    return Prompt(f"key of {query}", messages(SemanticRoles, query), max_tokens)


def answers(url, *queries, task=SemanticRoles, **options):
    """What comes of each query, by query."""
    found = list(engine(url, **options).complete(task, map(prompt, queries)))
    assert sorted(one.key for one in found) == sorted(f"key of {query}" for query in queries)
    return {one.key.removeprefix("key of "): one for one in found}


def portal_threads():
    return [thread for thread in threading.enumerate() if "portal" in thread.name]


# Against vLLM's server.


@pytest.fixture(scope="module")
def queries():
    return [row["query"] for row in make_shop(brands=20, products=120, queries=60).pool.to_pylist()]


def test_a_server_answers_as_the_offline_engine_does(teacher_url, offline_engine, queries):
    served = answers(teacher_url, *queries, concurrency=64)
    offline = {
        one.key.removeprefix("key of "): one for one in offline_engine.complete(SemanticRoles, map(prompt, queries))
    }
    same = [query for query in queries if served[query].samples[0].text == offline[query].samples[0].text]
    assert len(same) >= 0.95 * len(queries)  # another batch may round another way
    for query in same:
        theirs, ours = served[query], offline[query]
        assert (theirs.tokens_in, theirs.tokens_out, theirs.attempts) == (
            ours.tokens_in,
            ours.tokens_out,
            ours.attempts,
        )
        [one], [other] = theirs.samples, ours.samples
        assert one.finished == other.finished
        if one.finished:
            confidence = [field_confidence(SemanticRoles, sample.text, sample.pieces) for sample in (one, other)]
            assert confidence[0] == pytest.approx(confidence[1], abs=0.01)
    assert sum(one.tokens_cached for one in served.values()) > 0


def test_a_server_gives_several_samples_that_differ(teacher_url, queries):
    found = answers(teacher_url, *queries[:20], samples=4)
    assert {len(one.samples) for one in found.values()} == {4}
    assert any(len({sample.text for sample in one.samples}) > 1 for one in found.values())


def test_a_server_is_asked_again_with_a_larger_budget_where_an_answer_was_cut_short(teacher_url, queries):
    url, query = teacher_url, queries[0]
    whole = answers(url, query)[query]
    [short] = engine(url).complete(SemanticRoles, [prompt(query, max_tokens=4)])
    assert short.attempts == 2
    assert (short.samples[0].finished, whole.samples[0].finished) == (whole.tokens_out <= 16, True)
    assert short.tokens_in == 2 * whole.tokens_in
    [cut] = engine(url).complete(SemanticRoles, [prompt(query, max_tokens=1)])
    assert (cut.attempts, cut.samples[0].finished) == (2, False)


def test_a_prompt_too_long_for_the_server_fails_alone(teacher_url):
    found = answers(teacher_url, "milk", "word " * 2000, "tea")
    assert "maximum context length" in found["word " * 2000].error
    assert found["word " * 2000].samples == ()
    assert all(found[query].samples and not found[query].error for query in ("milk", "tea"))


class Unusable(Task):
    """Find the thing."""

    name = "unusable"
    things: list[str] = Field(description="each once")

    @classmethod
    def json_schema(cls):
        schema = super().json_schema()
        schema["properties"]["things"]["uniqueItems"] = True
        return schema


def test_a_schema_the_server_cannot_compile_is_one_error_not_a_failure_a_query(teacher_url):
    given = engine(teacher_url).complete(Unusable, map(prompt, ["milk", "tea", "oat"]))
    with pytest.raises(EngineError, match=r"no prompt of the task unusable.*xgrammar.*JSON schema"):
        list(given)


def test_a_model_the_server_does_not_have_is_one_error(teacher_url):
    with pytest.raises(EngineError, match=r"HTTP 404.*teacher\.model is one of those at http.*/v1/models"):
        answers(teacher_url, "milk", model="another")


# Against a server on its worst days.


@pytest.mark.parametrize("act", [fails(429, 1), fails(500, 2), fails(503, 1), fails(408, 1), fails(409, 1), cuts(1)])
def test_what_passes_is_asked_again_until_it_has_passed(act):
    with hostile(act) as server:
        found = answers(server.url, "milk", "tea")
    assert [found[query].samples[0].text for query in ("milk", "tea")] == [roles("milk"), roles("tea")]
    assert {one.attempts for one in found.values()} == {1}
    assert all(times >= 2 for times in server.times.values())


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (says(b"<!doctype html><title>Sign in</title>", "text/html"), r"text/html that is no chat completion.*Sign in"),
        (says(b'{"choices": [{"mess'), r"application/json that is no chat completion"),
        (says(b""), r"no chat completion"),
        (says({"object": "list", "data": []}), r"no chat completion \(choices: Field required\)"),
        (says({"choices": "none"}), r"choices: "),
        (says(completion(choice(["not", "a", "text"]) | {"logprobs": None})), r"choices\.0\.message\.content: "),
        (says(b"\x1b[2J\x00 teapot", "text/\x01plain"), r"text/ plain that is.*'\[2J teapot'"),
        (fails(401, 99, "no key"), r"HTTP 401: no key.*STILLHOUSE_TEACHER_KEY"),
        (fails(403, 99, "not for you"), r"no prompt of the task.*HTTP 403: not for you"),
        (fails(404, 99, "no such model"), r"HTTP 404: no such model.*teacher\.model"),
        (fails(418, 99, "a teapot"), r"HTTP 418: a teapot.*own log"),
        (fails(503, 99, "still loading"), r"HTTP 503: still loading.*own log"),
        (fails(429, 99, "quota"), r"HTTP 429: quota.*teacher\.concurrency"),
        (fails(429, 99, "tomorrow", {"retry-after": "86400"}), r"HTTP 429: tomorrow"),
        (cuts(99), r"cuts the connection"),
        (hangs, r"no whole answer in 1 s"),
    ],
)  # fmt: skip
def test_a_server_that_gives_no_answer_is_one_error_that_names_it_and_says_what_to_do(act, message):
    with hostile(act) as server, pytest.raises(EngineError, match=message) as raised:
        answers(server.url, *map(str, range(30)), deadline=1 if act is hangs else 3.4)
    assert server.url in str(raised.value)
    assert str(raised.value).isprintable()
    assert not portal_threads()


def test_nobody_at_the_address_is_found_out_at_once_whatever_the_deadline():
    with hostile(well) as server:
        url = server.url
    start = time.monotonic()
    with pytest.raises(EngineError, match=rf"{url} can't be reached"):
        answers(url, "milk", deadline=3600)
    assert time.monotonic() - start < 60


def test_what_was_answered_before_the_server_failed_stays():
    def act(handler, body, before):
        fine = int(asked(body)) < 40
        well(handler, body, before) if fine else fails(404, 99)(handler, body, before)

    with hostile(act) as server:
        found = engine(server.url, concurrency=1).complete(SemanticRoles, (prompt(str(n)) for n in range(100)))
        assert {next(found).key for _ in range(40)} == {f"key of {n}" for n in range(40)}
        with pytest.raises(EngineError, match="404"):
            next(found)


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_prompt_the_server_refuses_fails_alone_when_a_plain_one_is_answered(status):
    def act(handler, body, before):
        refused = asked(body).startswith("bad")
        (fails(status, 99, "content filter") if refused else well)(handler, body, before)

    queries = [f"bad {n}" if n % 10 == 0 else f"good {n}" for n in range(50)]
    with hostile(act) as server:
        found = answers(server.url, *queries)
    assert {query for query, one in found.items() if one.error} == {f"bad {n}" for n in range(0, 50, 10)}
    assert all(f"HTTP {status}: content filter" in one.error for one in found.values() if not one.samples)
    assert server.times[PLAIN_QUERY] == 5


def test_a_server_that_refuses_every_prompt_stops_the_run_and_is_asked_little():
    with hostile(fails(400, 10**6, "bad response_format")) as server:
        given = engine(server.url).complete(SemanticRoles, (prompt(str(n)) for n in count()))
        with pytest.raises(EngineError, match=r"no prompt of the task.*bad response_format.*JSON schema"):
            list(given)
    assert len(server.bodies) <= 3 * 8


@pytest.mark.parametrize("always", [False, True])
def test_fewer_answers_than_asked_for_are_asked_for_again_and_never_taken_for_all(always):
    def act(handler, body, before):
        few = asked(body) == "bad" and (always or before == 0)
        reply(handler, 200, completion(*[choice(roles("x"))] * (2 if few else body["n"])))

    with hostile(act) as server:
        found = answers(server.url, "good", "bad", samples=3)
    assert [len(found[query].samples) for query in ("good", "bad")] == [3, 0 if always else 3]
    assert found["bad"].error == ("it gave 2 of 3 answers, twice" if always else "")
    assert always or (found["bad"].attempts, found["bad"].tokens_in) == (2, 80)


@pytest.mark.parametrize("given", [0, 1])
def test_a_server_that_never_gives_as_many_answers_as_asked_for_is_one_error(given):
    message = rf"it gave {given} of 3 answers, twice.*teacher\.samples"
    act = says(completion(*[choice(roles("x"))] * given))
    with hostile(act) as server, pytest.raises(EngineError, match=message):
        answers(server.url, "milk", samples=3)


def test_an_empty_answer_a_refusal_and_a_filtered_one_are_kept_as_what_they_are():
    said = {
        "empty": choice(""), "null": choice("") | {"message": {"content": None}}, "sorry": choice("", refusal="I can't"),
        "filtered": choice(roles("x"), "content_filter"), "bare": choice(roles("x")) | {"logprobs": None},
    }  # fmt: skip
    with hostile(lambda handler, body, before: reply(handler, 200, completion(said[asked(body)]))) as server:
        found = {query: one.samples[0] for query, one in answers(server.url, *said).items()}
    assert [found[query].text for query in ("empty", "null", "sorry")] == ["", "", "I can't"]
    assert [found[query].finished for query in ("empty", "sorry", "filtered", "bare")] == [True, True, False, True]
    assert found["bare"].pieces == ()


def test_an_answer_of_no_use_is_asked_for_once_more_with_a_larger_budget():
    def act(handler, body, before):
        cut = before == 0 or asked(body) == "never"
        reply(handler, 200, completion(choice('{"product":"mi', "length") if cut else choice(roles("milk"))))

    with hostile(act) as server:
        found = answers(server.url, "milk", "never")
    assert [body["max_tokens"] for body in server.bodies if asked(body) == "milk"] == [64, 256]
    assert (found["milk"].attempts, found["milk"].tokens_in, found["milk"].tokens_out) == (2, 80, 16)
    assert found["milk"].samples[0].text == roles("milk")
    assert (found["never"].attempts, found["never"].samples[0].finished) == (2, False)


def test_a_second_attempt_that_does_not_fit_leaves_the_first():
    def act(handler, body, before):
        if before:
            return fails(400, 99, "maximum context length")(handler, body, before)
        return reply(handler, 200, completion(choice('{"product":"mi', "length")))

    with hostile(act) as server:
        found = answers(server.url, "milk")["milk"]
    assert (found.error, found.attempts, found.samples[0].text) == ("", 1, '{"product":"mi')
    assert PLAIN_QUERY not in [asked(body) for body in server.bodies[2:]]


def test_so_many_requests_run_at_once_and_prompts_are_taken_as_they_are_needed():
    taken = []

    def act(handler, body, before):
        time.sleep(0.01)
        well(handler, body, before)

    def prompts():
        for number in range(IN_FLIGHT + 100):
            taken.append(number)
            yield prompt(str(number))

    with hostile(act) as server:
        for given, _ in enumerate(engine(server.url, concurrency=6).complete(SemanticRoles, prompts()), 1):
            assert len(taken) - given <= IN_FLIGHT
    assert given == IN_FLIGHT + 100
    assert server.most_active == 6


def test_closing_early_asks_nothing_more_and_leaves_nothing_behind(capfd, recwarn):
    def act(handler, body, before):
        time.sleep(0.02)
        well(handler, body, before)

    with hostile(act) as server:
        found = engine(server.url, concurrency=4).complete(SemanticRoles, (prompt(str(n)) for n in count()))
        assert [next(found) for _ in range(10)]
        found.close()
        seen = -1
        while seen < len(server.bodies):  # what was on its way arrives
            seen = len(server.bodies)
            assert seen < IN_FLIGHT
            time.sleep(0.3)
    assert not portal_threads()
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)


def test_prompts_that_fail_to_come_end_the_run_as_their_own_error():
    def prompts():
        yield prompt("milk")
        raise InputError("the log is broken")

    with hostile(well) as server, pytest.raises(InputError, match="the log is broken"):
        list(engine(server.url).complete(SemanticRoles, prompts()))
    assert not portal_threads()


def test_one_engine_is_asked_any_number_of_times():
    with hostile(well) as server:
        one = engine(server.url)
        rounds = [{item.key for item in one.complete(SemanticRoles, map(prompt, "abc"))} for _ in range(3)]
        assert list(one.complete(SemanticRoles, [])) == []
        one.close()
    assert rounds == [{"key of a", "key of b", "key of c"}] * 3


def test_the_key_is_sent_to_the_server_and_shown_to_nobody(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    with hostile(fails(401, 99, f"Incorrect API key provided: {KEY}")) as server:
        with pytest.raises(EngineError, match="Incorrect API key provided: …") as raised:
            answers(server.url, "milk", key=f"{KEY}\n")
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
        with pytest.raises(EngineError, match="401"):
            answers(server.url, "milk")
    assert KEY not in str(raised.value)
    assert "another" not in json.dumps(server.headers)
    with pytest.raises(SettingsError, match="STILLHOUSE_TEACHER_KEY") as wrong:
        engine(server.url, key=f"{KEY}\nX-Other: 1")
    assert KEY not in str(wrong.value)


def test_a_url_with_a_password_is_used_and_never_shown():
    with hostile(fails(404, 99)) as server:
        url = server.url.replace("http://", "http://ann:swordfish@") + "?token=swordfish"
        with pytest.raises(EngineError) as raised:
            answers(url, "milk")
    assert "swordfish" not in str(raised.value)
    assert server.url in str(raised.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000/v1", "ftp://host/v1", "http:///v1", "http://[::1/v1", "http://h:x/v1", "http://h/v1\n"]
)
def test_what_is_no_url_is_said_before_anything_is_asked(url):
    with pytest.raises(SettingsError, match=r"teacher\.url: wanted such as http"):
        engine(url)


def test_the_identity_is_the_model_and_not_where_it_is_served():
    def identity(url, *given):
        return UrlEngine(url, *given, 8, 60, None).model

    assert (
        identity("http://a/v1", "m", None, Sampling(64)) == "m@main" == identity("http://b/v1", "m", None, Sampling(9))
    )
    assert identity("http://a/v1", "m", "abc", Sampling(64)) == "m@abc"
    assert identity("http://a/v1", "m", None, Sampling(64, samples=4)) == "m@main best of 4 at 0.7"


# The foreign JSON.


@given(st.text(min_size=1), st.data())
def test_the_pieces_spell_the_text_however_its_bytes_are_cut_into_tokens(text, data):
    whole = text.encode("utf-8", "replace")
    edges = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=6)) | {0, len(whole)})
    parts = [whole[start:end] for start, end in pairwise(edges)]
    tokens = [{"token": repr(part), "logprob": -0.5, "bytes": list(part)} for part in parts]
    body = completion(choice(text) | {"logprobs": {"content": tokens}})
    [sample] = read_completion("k", json.dumps(body).encode("utf-8", "replace"), 1).samples
    assert "".join(piece for piece, _ in sample.pieces) == whole.decode()
    assert len(sample.pieces) == len(parts)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["choices", "message", "content", "usage", "logprobs", "x"]), inner), max_leaves=12))  # fmt: skip
def test_any_json_is_a_completion_or_an_input_error(value):
    with suppress(InputError):
        assert read_completion("k", json.dumps(value).encode(), 1).key == "k"


@pytest.mark.parametrize("logprob", ["NaN", "-Infinity", '"high"', "null"])
def test_a_log_probability_that_is_none_is_no_completion(logprob):
    body = json.dumps(completion(choice("x"))).replace("-0.1", logprob)
    with pytest.raises(InputError, match=r"choices\.0\.logprobs\.content\.0\.logprob"):
        read_completion("k", body.encode(), 1)
