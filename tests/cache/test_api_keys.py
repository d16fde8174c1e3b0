import asyncio
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.api_keys import key_of, parse_api_keys
from cache.http import create_app
from cache.rates import Rates
from cache.shared import Shared
from labels.errors import SettingsError
from tests.cache.shop import Echo, looking, publish_queries

KEYS = "search: alpha-7f3a9c ,ads:beta-11d2e8"


def test_each_key_is_its_callers():
    keys = parse_api_keys(KEYS)
    assert keys.names == ("search", "ads")
    assert [keys.number(key) for key in (b"alpha-7f3a9c", b"beta-11d2e8")] == [0, 1]
    assert [keys.number(key) for key in (b"", b"alpha", b"alpha-7f3a9c ", b"search", b"\xff")] == [None] * 5


def test_no_text_is_no_keys():
    assert parse_api_keys("") is None


@pytest.mark.parametrize(
    "text",
    [
        " , ",
        "hunter2",
        "ana:hunter2,ana:other",
        "ana:hunter2,ben:hunter2",
        ":hunter2",
        "ana:",
        "ana:hunter2 x",
        "ana:hünter2",
    ],
)
def test_keys_that_are_not_as_wanted_are_refused_and_not_shown(text):
    with pytest.raises(SettingsError, match="STILLHOUSE_API_KEYS") as refused:
        parse_api_keys(text)
    assert "nter2" not in str(refused.value)


@given(st.binary())
def test_nobody_elses_key_is_taken(sent):
    assert parse_api_keys(KEYS).number(sent) is None


def test_a_key_is_sent_in_either_header():
    assert key_of([(b"host", b"x"), (b"authorization", b"bearer  abc")]) == b"abc"
    assert key_of([(b"x-api-key", b"abc")]) == b"abc"
    assert key_of([(b"authorization", b"Basic abc")]) == b""


def asked(redis_url, requests, **options):
    """The answers to requests (path, key), one after the other."""
    app = create_app(lambda: looking(redis_url, Echo()), **options)

    async def ask():
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http,
        ):
            return [await http.get(path, headers={"x-api-key": key} if key else {}) for path, key in requests]

    return asyncio.run(ask())


def test_with_keys_only_who_sends_one_is_answered(redis_url, client):
    publish_queries(client, 1, "milk")
    wanted = ["/v1/lookup?q=milk", "/metrics", "/healthz", "/readyz", "/openapi.json"]
    keys = parse_api_keys(KEYS)
    without = asked(redis_url, [(path, "") for path in wanted], keys=keys)
    assert [answer.status_code for answer in without] == [401, 401, 200, 200, 200]
    assert without[0].headers["www-authenticate"] == "Bearer"
    assert "API key" in without[0].json()["error"]
    assert [answer.status_code for answer in asked(redis_url, [(path, "wrong") for path in wanted[:2]], keys=keys)] == [
        401
    ] * 2
    assert [
        answer.status_code for answer in asked(redis_url, [(path, "beta-11d2e8") for path in wanted], keys=keys)
    ] == [200] * 5
    described = without[-1].json()
    assert "401" in described["paths"]["/v1/lookup"]["get"]["responses"]
    assert described["components"]["securitySchemes"]


def test_each_key_has_a_rate_of_its_own(redis_url, client):
    publish_queries(client, 1, "milk")
    requests = [("/v1/lookup?q=milk", key) for key in ["alpha-7f3a9c"] * 3 + ["beta-11d2e8"]]
    answers = asked(redis_url, [*requests, ("/healthz", "")], keys=parse_api_keys(KEYS), rate=0.01)
    assert [answer.status_code for answer in answers] == [200, 429, 429, 200, 200]
    assert 1 < int(answers[1].headers["retry-after"]) <= 100
    assert "0.01 requests a second" in answers[1].json()["error"]


def test_without_keys_each_address_has_a_rate(redis_url, client):
    publish_queries(client, 1, "milk")
    answers = asked(redis_url, [("/v1/lookup?q=milk", "")] * 3, rate=0.01)
    assert [answer.status_code for answer in answers] == [200, 429, 429]


def test_a_caller_may_go_on_after_the_wait_it_is_told():
    rates = Rates(20, Shared().callers)
    granted = 0
    while not (wait := rates.wait("10.0.0.1")):
        granted += 1
    assert granted >= 20
    assert 0 < wait <= 1 / 20
    assert rates.wait("10.0.0.2") == 0
    assert rates.wait(3) == 0
    time.sleep(wait)
    assert rates.wait("10.0.0.1") == 0


def test_processes_that_share_a_table_share_the_rate():
    callers = Shared().callers
    assert Rates(0.001, callers).wait(0) == 0
    assert 900 < Rates(0.001, callers).wait(0) <= 1000
