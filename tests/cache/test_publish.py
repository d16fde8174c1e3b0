import threading
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from cache.canonical import alias, canonical, placed
from cache.client import connect
from cache.layout import (
    CHANGED,
    GENERATIONS,
    PER_BUCKET,
    RELEASE,
    bucket_key,
    bucket_of,
    entry,
    find,
    manifest_key,
    parse_entry,
    unseal,
)
from cache.publish import BUCKETS_AT_ONCE, CHUNK, _check_normal, publish
from cache.release import current_release, releases, rollback
from cache.server import local_redis
from labels.errors import PublishError, ServiceError, SettingsError
from labels.normalise import normalise
from labels.services import free_port
from tests.cache.shop import FIELDS, keys_of, publish_queries, release, rows, stored, value

ENTRIES = PER_BUCKET * (BUCKETS_AT_ONCE + 3)  # of a generation that takes two writes


def test_a_published_generation_is_there_whole_and_served(client):
    queries = [f"query {number}" for number in range(CHUNK + 7)]
    made = publish_queries(client, 1, *queries)
    assert current_release(client) == made
    assert releases(client) == [made]
    buckets = {bucket_key("g1", number) for number in range(made.buckets)}
    assert keys_of(client, "g1") == buckets | {manifest_key("g1")}
    some = queries[:: PER_BUCKET * 5]
    assert [parse_entry(stored(client, made, query), FIELDS).value["product"] for query in some] == some
    assert {client.ttl(key) for key in buckets} == {-1}
    assert client.hgetall(GENERATIONS) == {b"g1": str(made.buckets).encode()}


def test_before_the_first_publish_there_is_no_release(client):
    assert current_release(client) is None
    assert releases(client) == []


def test_a_publish_says_what_it_took(client):
    done = publish(client, rows(*map(str, range(5000))), release(1, 5000))
    taken = sum(client.memory_usage(bucket_key("g1", number)) for number in range(release(1, 5000).buckets))
    assert done.written
    assert done.note == ""
    assert done.measured == pytest.approx(taken, rel=0.1)
    assert done.forecast == pytest.approx(taken, rel=0.25)


def test_publishing_what_is_served_does_nothing(client):
    made = publish_queries(client, 1, "milk")
    assert not publish(client, iter_that_fails(), made).written
    assert releases(client) == [made]


def test_a_generation_already_there_is_served_by_a_new_release_without_writing(client):
    first = publish_queries(client, 1, "milk")
    again = replace(first, release="r2", student="s2")
    assert not publish(client, iter_that_fails(), again).written
    assert current_release(client) == again
    assert rollback(client) == first


def test_a_generation_that_lost_a_bucket_is_written_again(client):
    first = publish_queries(client, 1, *map(str, range(100)))
    client.delete(bucket_key("g1", 3))
    again = replace(first, release="r2", student="s2")
    assert publish(client, rows(*map(str, range(100))), again).written
    assert client.exists(bucket_key("g1", 3))


def test_a_bucket_spoiled_since_is_mended_once_the_release_is_published_again(client):
    made = publish_queries(client, 1, *map(str, range(100)))
    whole = client.get(bucket_key("g1", 3))
    client.set(bucket_key("g1", 3), whole[:-1])
    assert publish(client, rows(*map(str, range(100))), made).written
    assert client.get(bucket_key("g1", 3)) == whole
    assert not publish(client, rows(*map(str, range(100))), made).written


@pytest.mark.parametrize("lost", [manifest_key("g1"), bucket_key("g1", 3)])
def test_what_the_release_served_has_lost_is_there_again_once_it_is_published_again(client, lost):
    made = publish_queries(client, 1, *map(str, range(100)))
    client.delete(lost)
    assert publish_queries(client, 1, *map(str, range(100))).generation == made.generation
    assert client.exists(lost)
    assert len(releases(client)) == 1


def test_a_generation_of_other_facts_is_not_taken_for_the_release_s(client):
    first = publish_queries(client, 1, "milk")
    with pytest.raises(PublishError, match=r"r2 wanted generation g1 to be .*task_version.*give the release a gen"):
        publish(client, rows("milk"), replace(first, release="r2", task_version="another"))
    client.set(manifest_key("g1"), "theirs")
    with pytest.raises(PublishError, match="'theirs'"):
        publish(client, rows("milk"), replace(first, release="r2"))
    assert current_release(client) == first


def test_who_listens_hears_of_a_switch(client):
    with client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(CHANGED)
        channel.get_message(timeout=5)
        publish_queries(client, 1, "milk")
        assert channel.get_message(timeout=5)["data"] == RELEASE.encode()


def test_servers_are_made_ready_before_the_switch_and_may_refuse_it(client):
    old = publish_queries(client, 1, "milk")
    seen = []

    def ready(coming):
        seen.append((coming.release, client.exists(manifest_key("g2")), current_release(client).release))
        if len(seen) == 1:
            raise ServiceError("server a has not started s2")

    new = release(2, 1, student="s2")
    with pytest.raises(ServiceError, match="has not started"):
        publish(client, rows("bread"), new, ready=ready)
    assert current_release(client) == old
    assert not publish(client, iter_that_fails(), new, ready=ready).written  # what was written is there still
    assert seen == [("r2", 1, "r1")] * 2
    assert current_release(client) == new


def iter_that_fails(after=0):
    yield from rows(*[f"query {number}" for number in range(after)])
    raise OSError("the disk went away")


def test_a_publish_that_dies_half_way_leaves_the_old_release_and_the_next_cleans_up(client, redis_url):
    old = publish_queries(client, 1, "milk")
    queries = [f"query {number}" for number in range(ENTRIES)]
    other = redis_user(client, redis_url, "~*", "+@all", "-exists")  # writes, and can't read back
    with closing(other), pytest.raises(ServiceError, match="exists"):
        publish_queries(other, 2, *queries)
    assert current_release(client) == old
    assert releases(client) == [old]
    assert len(keys_of(client, "g2")) == release(2, ENTRIES).buckets
    new = publish_queries(client, 3, "bread")
    assert keys_of(client, "g2") == set()
    assert set(client.hgetall(GENERATIONS)) == {b"g1", b"g3"}
    assert current_release(client) == new


def redis_user(client, url, *rules):
    """A client that may do what the rules say."""
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">secret", *rules)
    return connect(f"{url}?username=limited&password=secret")


def test_entries_that_fail_half_way_write_nothing(client):
    old = publish_queries(client, 1, "milk")
    with pytest.raises(PublishError, match=r"r2 was not published: the disk went away.*same command again"):
        publish(client, iter_that_fails(after=CHUNK + 10), release(2, 3 * CHUNK))
    assert current_release(client) == old
    assert keys_of(client, "g2") == set()


def test_a_generation_that_died_half_written_can_be_published_again_under_its_name(client):
    client.hset(GENERATIONS, "g1", 9)
    client.mset({bucket_key("g1", number): "half" for number in range(9)})
    made = publish_queries(client, 1, "milk")
    assert current_release(client) == made
    assert keys_of(client, "g1") == {bucket_key("g1", 0), manifest_key("g1")}


class Meddled(Redis):
    """Another program is at work in this Redis: it comes between what was written and its reading back."""

    def exists(self, *keys):
        self.meddle(keys[2])
        return super().exists(*keys)


class Deletes(Meddled):
    meddle = Redis.delete


class Overwrites(Meddled):
    def meddle(self, key):
        for other in (key[:-2] + str(number) + "}" for number in range(4)):
            self.set(other, "theirs")


@pytest.mark.parametrize(
    ("meddled", "says"), [(Deletes, "4 buckets were written but 3 are there"), (Overwrites, "read back other than")]
)
def test_a_bucket_lost_or_spoiled_is_noticed_before_the_switch(client, redis_url, meddled, says):
    old = publish_queries(client, 1, "milk")
    with closing(meddled.from_url(redis_url)) as among_others, pytest.raises(PublishError, match=says):
        publish_queries(among_others, 2, *map(str, range(4 * PER_BUCKET)))
    assert current_release(client) == old
    assert not client.exists(manifest_key("g2"))


@pytest.mark.parametrize(
    ("entries", "count", "says"),
    [
        (rows("milk"), 2, "says 2 entries, got 1"),
        (rows("milk", "bread", "milk"), 3, "'milk' comes twice"),
        (rows("bread", "Milk"), 2, "'Milk' is not in normal form"),
        (rows("bread", "café", "cafe\u0301"), 3, "is not in normal form"),
        (rows("bread", ""), 2, "'' is not in normal form"),
        (rows(""), 1, "'' is not in normal form"),
        (rows("a\tb"), 1, "is not in normal form"),
        (rows("\ud800"), 1, "is not in normal form"),
        (rows("\x01milk"), 1, "is not in normal form"),
        ([("milk", "[1,\n2]")], 1, "with a line break"),
    ],
)
def test_entries_that_are_not_what_they_must_be_are_refused(client, entries, count, says):
    with pytest.raises(PublishError, match=says):
        publish(client, entries, release(1, count))
    assert current_release(client) is None
    assert keys_of(client, "g1") == set()


@given(st.lists(st.text(max_size=5) | st.sampled_from(["milk", "oat milk", "café", "ß", "\u0301", "가", "ﬁ"])))
def test_queries_pass_together_if_and_only_if_each_is_in_normal_form(some):
    each = all(query and normalise(query) == query for query in some)
    try:
        _check_normal(some)
    except PublishError:
        assert not each
    else:
        assert each


def test_queries_of_one_hash_are_not_taken_for_one(client):
    twins = ["plumless", "buckeroo"]  # the CRC-32 of both is 4ddb0c25
    made = publish_queries(client, 1, *twins)
    assert [parse_entry(stored(client, made, query), FIELDS).value["product"] for query in twins] == twins


def test_a_canonical_release_holds_queries_and_aliases_in_one_bucket(client):
    query = "organic oat milks"
    form = canonical(query)
    told = entry(value(query), 0.9, "teacher")
    made = release(1, 1, canonical=True)
    publish(client, [(query, told), (alias(form), told)], made)
    bucket = unseal(client.get(bucket_key("g1", bucket_of(placed(query), made.buckets))))
    assert find(bucket, query) == find(bucket, alias(form)) == told.encode()


def test_an_alias_counts_as_no_entry_and_is_refused_in_a_release_without(client):
    told = entry(value("milk"), 0.9, "teacher")
    with pytest.raises(PublishError, match="not in normal form"):
        publish(client, [("milk", told), (alias("milk"), told)], release(1, 1))
    with pytest.raises(PublishError, match="says 2 entries, got 1"):
        publish(client, [("milk", told), (alias("milk"), told)], release(1, 2, canonical=True))


def test_a_generation_name_that_could_reach_other_keys_is_refused(client):
    with pytest.raises(PublishError, match=r"got 'g1:\*'"):
        publish(client, rows("milk"), release("1:*", 1))


def test_a_release_of_other_buckets_than_its_entries_need_is_refused(client):
    with pytest.raises(PublishError, match="wanted 9 buckets for 100 entries"):
        publish(client, rows(*map(str, range(100))), release(1, 100, buckets=1))


def test_an_empty_generation_may_be_published(client):
    assert publish_queries(client, 1) == current_release(client)


def test_as_many_generations_are_kept_as_wanted_and_older_ones_unlinked(client):
    for number in range(1, 5):
        publish(client, rows("milk"), release(number, 1), kept=2)
    assert [bool(keys_of(client, f"g{number}")) for number in range(1, 5)] == [False, False, True, True]
    with pytest.raises(PublishError, match="release r1: its generation g1 is gone"):
        rollback(client, "r1")
    assert current_release(client).release == "r4"


def test_the_generation_served_is_kept_however_old(client):
    for number in range(1, 4):
        publish_queries(client, number, "milk")
    rollback(client, "r1")
    publish_queries(client, 4, "milk")
    assert keys_of(client, "g1")
    assert rollback(client).release == "r1"


def test_other_programs_keys_are_left_alone(client):
    client.set("session:42", "theirs")
    for number in range(5):
        publish_queries(client, number, "milk")
    assert client.get("session:42") == b"theirs"


def test_redis_down_is_one_clear_error_and_the_old_release_survives_it(tmp_path):
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        old = publish_queries(client, 1, "milk")
    with closing(connect(url)) as client, pytest.raises(ServiceError, match=r"wanted Redis at unix://.*redis_url"):
        publish_queries(client, 2, "milk")
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        assert current_release(client) == old
        assert parse_entry(stored(client, old, "milk"), FIELDS).author == "teacher"


def test_redis_that_dies_before_the_switch_leaves_the_old_release(tmp_path):
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        old = publish_queries(client, 1, "milk")

        def die(_):
            with closing(connect(url)) as other:
                other.shutdown(nosave=True)

        with pytest.raises(ServiceError, match="wanted Redis at"):
            publish(client, rows("bread"), release(2, 1), ready=die)
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        assert current_release(client) == old
        assert publish_queries(client, 3, "bread") == current_release(client)
        assert keys_of(client, "g2") == set()


def test_an_error_names_the_address_without_the_password():
    nowhere = closing(connect(f"redis://user:secret@127.0.0.1:{free_port()}/0"))
    with nowhere as client, pytest.raises(ServiceError, match=r"redis://127.0.0.1:\d+") as caught:
        current_release(client)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:6379", "redis://user:sec/ret@host", "redis://user:sec@host?ret=1"])
@pytest.mark.parametrize("cluster", [False, True])
def test_a_url_that_is_none_is_refused_without_repeating_a_password(url, cluster):
    with pytest.raises(SettingsError, match=r"wanted redis://user:password@host:6379/0") as caught:
        connect(url, cluster)
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value)


def test_a_foreign_value_in_the_release_key_is_explained(client):
    client.set(RELEASE, "theirs")
    with pytest.raises(PublishError, match=r"holds no release.*another program"):
        current_release(client)
    client.delete(RELEASE)
    client.lpush(RELEASE, "theirs")
    with pytest.raises(PublishError, match=r"holds no release.*another program"):
        publish_queries(client, 1, "milk")


def test_a_reader_never_sees_a_release_whose_entries_are_not_there(client, redis_url):
    seen, done = set(), threading.Event()

    def read():
        with closing(Redis.from_url(redis_url)) as reader:
            while not done.is_set():
                if serving := current_release(reader):
                    seen.add((serving.release, stored(reader, serving, "query 0") is not None))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 4):
        publish_queries(client, number, *[f"query {n}" for n in range(2_000)])
    rollback(client)
    done.set()
    reader.join()
    assert {there for _, there in seen} == {True}
