from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.canonical import alias, aliases
from cache.diff import Change, diff, read_generation
from cache.layout import bucket_key, entry
from cache.publish import publish
from labels.errors import PublishError
from tests.cache.shop import publish_queries, release, rows, value

labels = st.dictionaries(st.integers(0, 60).map("query {}".format), st.sampled_from("abc"), max_size=60)


def told(labels):
    return [(query, entry(value(query, brand), 0.5, "teacher")) for query, brand in labels.items()]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels, labels, st.booleans())
def test_what_differs_is_what_was_added_removed_or_given_another_label(client, before, after, canonical):
    client.flushall()
    first, second = release(1, len(before)), release(2, len(after), canonical=canonical)
    publish(client, told(before), first)
    lines = dict(told(after))
    more = [(alias(form), lines[query]) for form, query in aliases(list(after)).items()] if canonical else []
    publish(client, [*lines.items(), *more], second)
    assert {query: value.decode() for query, value in read_generation(client, second)} == lines
    changes = list(diff(client, first, second))
    assert {one.query for one in changes if one.kind == "added"} == after.keys() - before.keys()
    assert {one.query for one in changes if one.kind == "removed"} == before.keys() - after.keys()
    both = before.keys() & after.keys()
    assert {one.query for one in changes if one.kind == "changed"} == {q for q in both if before[q] != after[q]}
    assert len({one.query for one in changes}) == len(changes)
    assert {(one.query, one.after, one.before) for one in diff(client, second, first)} == {
        (one.query, one.before, one.after) for one in changes
    }


def test_generations_of_many_chunks_and_other_sizes_are_compared_whole(client):
    first = publish_queries(client, 1, *map(str, range(13_000)))
    second = publish_queries(client, 2, *map(str, range(1_000, 20_000)))
    assert Counter(one.kind for one in diff(client, first, second)) == {"removed": 1_000, "added": 7_000}


def test_who_said_it_and_how_surely_is_no_change(client):
    made = release(1, 1), release(2, 1)
    publish(client, [("milk", entry(value("milk"), 0.5, "teacher"))], made[0])
    publish(client, [("milk", entry(value("milk"), 1.0, "person", made=1_700_000_000))], made[1])
    assert list(diff(client, *made)) == []


def test_a_change_carries_both_labels(client):
    first, second = publish_queries(client, 1, "milk"), publish_queries(client, 2, "milk", brand="acme")
    [change] = diff(client, first, second)
    assert change == Change("milk", rows("milk")[0][1].encode(), rows("milk", brand="acme")[0][1].encode())


@pytest.mark.parametrize("broken", [None, "theirs"])
def test_a_generation_that_lost_or_broke_a_bucket_is_no_smaller_generation(client, broken):
    made = publish_queries(client, 1, *map(str, range(30)))
    client.delete(bucket_key("g1", 1)) if broken is None else client.set(bucket_key("g1", 1), broken)
    with pytest.raises(PublishError, match=r"r1 has (lost a|a broken) bucket, stillhouse:.*\{g1:1\}"):
        list(read_generation(client, made))
