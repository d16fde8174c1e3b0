"""Asking a server that fails in the ways servers do: a real one over HTTP, whose answers the test gives."""

import asyncio
import json
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from labels.errors import EngineError, InputError
from labels.semantic_roles import SemanticRoles
from student.client import StudentClient, ask_all
from student.load import load

TEA = SemanticRoles(product="tea", brand="", attributes=[])


def chat(text, finish="stop"):
    tokens = [{"token": char, "logprob": -0.1} for char in text]
    return {"choices": [{"message": {"content": text}, "logprobs": {"content": tokens}, "finish_reason": finish}]}


@pytest.fixture
def serving():
    """Starts a server that answers what `answer(body, how often this query was asked)` gives: (status, JSON)."""
    servers = []

    def start(answer):
        asked = Counter()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = json.dumps(body.get("messages") or body.get("prompt"))
                asked[text] += 1
                status, value = answer(text, asked[text])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(value if isinstance(value, bytes) else json.dumps(value).encode())

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answers(url, queries):
    async def ask():
        async with StudentClient(url, "s", SemanticRoles, 64) as client:
            return await ask_all(client, SemanticRoles, queries, 4, lambda _: None)

    return asyncio.run(ask())


def call(url, method, *arguments):
    async def ask():
        async with StudentClient(url, "s", SemanticRoles, 64) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(ask())


def test_bad_answers_are_none_and_the_rest_is_there(serving):
    def answer(text, _):
        if "refused" in text:
            return 400, {"error": "too long"}
        if "garbage" in text:
            return 200, chat("<html>")
        return 200, chat(TEA.to_json(), "length" if "cut" in text else "stop")

    assert answers(serving(answer), ["tea", "refused", "garbage", "cut"]) == [TEA, None, None, None]


def test_a_query_that_the_server_failed_on_is_asked_once_more(serving):
    def answer(text, times):
        return (503, {}) if "query5" in text and times == 1 else (200, chat(TEA.to_json()))

    assert answers(serving(answer), [f"query{place}" for place in range(20)]) == [TEA] * 20


@pytest.mark.parametrize("failing", ["query5", "query"])
def test_a_server_that_goes_on_failing_is_no_measurement(serving, failing):
    def answer(text, _):
        return (503, {"error": "out of memory"}) if failing in text else (200, chat(TEA.to_json()))

    with pytest.raises(EngineError, match=r"the student failed on \d+ of 20 queries, first with: .*503.*out of memory"):
        answers(serving(answer), [f"query{place:02}" for place in range(20)] if failing == "query" else
                [f"query{place}" for place in range(20)])  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"choices": []}', b'{"choices": [{}]}', b"null"])
def test_what_is_no_answer_is_an_engine_error_whatever_was_asked(serving, body):
    url = serving(lambda *_: (200, body))
    for method, arguments in (
        ("ask", ["tea"]),
        ("answer_tokens", ["tea"]),
        ("rendered", ["tea"]),
        ("say", [[{"role": "user", "content": "hello"}], 8]),
        ("log_likelihood", ["once upon a time"]),
    ):
        with pytest.raises(EngineError, match="gave no answer"):
            call(url, method, *arguments)


def test_the_likelihood_of_a_text_is_that_of_its_tokens_but_the_first(serving):
    tokens = [None, {"7": {"logprob": -1.5, "rank": 3}}, {"9": {"logprob": -0.25, "rank": 1}}]
    url = serving(lambda text, _: (400, {}) if "long" in text else (200, {"choices": [{"prompt_logprobs": tokens}]}))
    assert call(url, "log_likelihood", "oat milk") == (-1.75, 2)
    with pytest.raises(InputError, match="refused"):
        call(url, "log_likelihood", "too long")


def test_load_asks_as_many_as_it_is_told_and_over_again(serving):
    seen = Counter()

    def answer(text, _):
        seen[text] += 1
        return 200, chat(TEA.to_json())

    async def measure(url, requests, limit):
        async with StudentClient(url, "s", SemanticRoles, 64) as client:
            return await load(client, ["a", "b", "c"], 4, requests, limit)

    url = serving(answer)
    found = asyncio.run(measure(url, 10, 60.0))
    assert len(found.seconds) == 10
    assert sorted(seen.values()) == [3, 3, 4]
    assert found.tokens == 10 * len(TEA.to_json())
    assert max(found.seconds) <= found.wall <= sum(found.seconds)
    assert len(asyncio.run(measure(url, 2, 60.0)).seconds) == 4, "each of the 4 callers asks, or they are not 4 at once"
    assert len(asyncio.run(measure(url, 10**6, 0.2)).seconds) < 10_000, "it ends in time"
