import pytest

from cache.layout import CHANGED, PEOPLE, entry
from cache.people import read_people, say_people, withdraw_people
from labels.errors import PublishError
from tests.cache.shop import value

LONG_AGO = 1_700_000_000


def said(product, made=LONG_AGO):
    return entry(value(product), 1.0, "person", made)


def test_what_people_say_is_there_at_once_and_whoever_listens_hears_of_it(client):
    with client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(CHANGED)
        channel.get_message(timeout=5)
        say_people(client, {"milk": said("milk"), "bread": said("bread")})
        assert read_people(client) == {"milk": said("milk"), "bread": said("bread")}
        withdraw_people(client, ["milk"])
        assert read_people(client) == {"bread": said("bread")}
        assert [channel.get_message(timeout=5)["data"] for _ in range(2)] == [PEOPLE.encode()] * 2


def test_saying_or_withdrawing_nothing_does_nothing(client):
    say_people(client, {})
    withdraw_people(client, ["milk"])
    withdraw_people(client, [])
    assert read_people(client) == {}


def test_a_query_that_no_lookup_finds_is_refused_and_none_is_written(client):
    with pytest.raises(PublishError, match="'Milk' is not in normal form"):
        say_people(client, {"bread": said("bread"), "Milk": said("milk")})
    assert read_people(client) == {}
