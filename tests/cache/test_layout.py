import json
import zlib
from contextlib import suppress

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from cache.layout import (
    AUTHORS,
    GENERATIONS,
    RELEASE,
    RELEASES,
    BrokenError,
    Entry,
    bucket_count,
    bucket_key,
    bucket_of,
    entry,
    find,
    hashes_of,
    lines_of,
    pack,
    parse_entry,
    parse_release,
    release_json,
    tail_key,
    unpack,
    unseal,
    values_of,
)
from labels.normalise import normalise
from tests.cache.shop import release

FIELDS = ("product", "brand", "attributes")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
queries = st.text(max_size=8).map(normalise).filter(bool)
values = st.tuples(texts, texts, st.lists(texts, max_size=2)).map(lambda told: dict(zip(FIELDS, told, strict=True)))
times = st.none() | st.integers(4, 2**40)
entries = st.builds(entry, values, st.floats(0, 1), st.sampled_from(AUTHORS), times)
buckets = st.dictionaries(queries, entries, min_size=1, max_size=5)


def packed(rows):
    return pack(lines_of(rows.items()))


@given(buckets)
def test_what_was_packed_is_found_and_unpacked(rows):
    opened = unseal(packed(rows))
    assert {query: find(opened, query) for query in rows} == {query: value.encode() for query, value in rows.items()}
    assert {query: value.decode() for query, value in unpack(opened)} == rows


@settings(max_examples=60)
@given(buckets, queries)
def test_a_query_that_was_not_packed_is_not_found(rows, other):
    assume(other not in rows)
    assert find(unseal(packed(rows)), other) is None


@settings(max_examples=60)
@given(buckets, st.data())
def test_the_beginning_the_end_and_the_middle_of_a_query_are_other_queries(rows, data):
    whole = data.draw(st.sampled_from(sorted(rows)))
    start = data.draw(st.integers(0, len(whole)))
    part = normalise(whole[start : data.draw(st.integers(start, len(whole)))])
    assume(part and part not in rows)
    assert find(unseal(packed(rows)), part) is None


@given(buckets, st.data())
def test_no_changed_byte_passes_for_what_was_written(rows, data):
    raw = bytearray(packed(rows))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BrokenError):
        unseal(bytes(raw))


@given(buckets, st.data())
def test_a_bucket_cut_short_is_broken(rows, data):
    raw = packed(rows)
    with pytest.raises(BrokenError):
        unseal(raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(st.binary(), queries)
@example(b"\nmilk\tno end", "milk")
def test_of_foreign_bytes_nothing_or_a_broken_error_comes(foreign, query):
    with suppress(BrokenError):
        assert find(foreign, query) is None or query.encode() in foreign
    with suppress(BrokenError):
        list(unpack(foreign))


@given(values, st.floats(0, 1), st.sampled_from(AUTHORS), times)
def test_an_entry_says_what_it_was_made_of(value, confidence, author, made):
    raw = entry(value, confidence, author, made)
    assert parse_entry(raw, FIELDS) == Entry(value, round(confidence, 3), author, made)
    assert values_of(raw) == list(value.values())
    assert "\n" not in raw


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=7),
        max_leaves=8,
    ).map(json.dumps)
)
@example("[1,2,3,0.5,1.0]")
@example("[1,2,3,0.5,true]")
@example("[1,2,3,7,0]")
def test_a_foreign_entry_is_an_entry_or_a_broken_error(foreign):
    with suppress(BrokenError):
        assert parse_entry(foreign, FIELDS).author in AUTHORS


@given(queries, st.integers(1, 10**7))
def test_a_query_has_one_bucket_of_those_there_are(query, count):
    assert 0 <= bucket_of(query, count) < count
    assert bucket_of(query, count) == next(hashes_of([query])) * count >> 32


@given(st.lists(queries, min_size=2), st.integers(1, 999), st.integers(1, 999))
def test_generations_of_any_size_hold_their_queries_in_one_order(some, few, many):
    ordered = sorted(some, key=lambda query: zlib.crc32(query.encode()))
    for count in (few, many):
        places = [bucket_of(query, count) for query in ordered]
        assert places == sorted(places)


def test_buckets_fill_evenly():
    places = [bucket_of(f"query {number}", 100) for number in range(10_000)]
    assert 60 < min(map(places.count, range(100))) < max(map(places.count, range(100))) < 150


@pytest.mark.parametrize(("entries", "count"), [(0, 1), (1, 1), (12, 1), (13, 2), (1_000_000, 83_334)])
def test_how_many_buckets_entries_need(entries, count):
    assert bucket_count(entries) == count


@given(queries, st.integers(0, 10**6))
def test_what_one_command_touches_is_in_one_slot_of_a_cluster(query, number):
    bucket, tail = bucket_key("g1", number), tail_key("g1", number, query)
    assert key_slot(bucket.encode()) == key_slot(tail.encode())
    assert bucket != tail
    assert len({key_slot(key.encode()) for key in (RELEASE, RELEASES, GENERATIONS)}) == 1


def test_a_release_says_what_it_was_made_of():
    made = release(1, 30, forced=("f1",), canonical=True, traffic_share=0.7)
    assert parse_release(release_json(made)) == made


@given(st.binary() | st.text() | st.dictionaries(st.text(), st.integers() | st.text()).map(json.dumps))
@example(b"\xff")
@example("[]")
def test_a_foreign_release_is_a_broken_error(foreign):
    with pytest.raises(BrokenError):
        parse_release(foreign)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"layout": 1}, "in layout 1, wanted 2: publish anew"),
        ({"layout": 3}, "in layout 3"),
        ({"buckets": 0}, "of some buckets, got 0"),
        ({"buckets": "1"}, "whose buckets is wrong"),
        ({"generation": None}, "whose generation is wrong"),
        ({"forced": "all"}, "whose forced is wrong"),
    ],
)
def test_a_wrong_release_says_what_is_wrong(changed, says):
    with pytest.raises(BrokenError, match=says):
        parse_release(json.dumps(json.loads(release_json(release(1, 3))) | changed))


def test_a_release_of_the_old_layout_says_so():
    with pytest.raises(BrokenError, match="in layout 1"):
        parse_release(release(1, 3).to_json())
