import threading
from contextlib import closing

import pytest
from redis import Redis

from cache.client import connect
from cache.layout import GENERATIONS, RELEASE, manifest_key, parse_entry, query_key
from cache.publish import CHUNK, current_release, publish, releases, rollback
from cache.server import local_redis
from labels.errors import PublishError, ServiceError, SettingsError
from labels.services import free_port
from tests.cache.shop import publish_queries, release, rows


def keys_of(client, generation):
    return {key.decode() for key in client.keys(f"stillhouse:{generation}:*")}


def test_a_published_generation_is_there_whole_and_served(client):
    queries = [f"query {number}" for number in range(2 * CHUNK + 7)]
    made = publish_queries(client, 1, *queries)
    assert current_release(client) == made
    assert releases(client) == [made]
    assert keys_of(client, "g1") == {query_key("g1", query) for query in queries} | {manifest_key("g1")}
    assert parse_entry(client.get(query_key("g1", "query 7"))).value["product"] == "query 7"
    assert client.ttl(query_key("g1", "query 7")) == -1


def test_before_the_first_publish_there_is_no_release(client):
    assert current_release(client) is None
    assert releases(client) == []


def test_publishing_what_is_served_does_nothing(client):
    made = publish_queries(client, 1, "milk")
    publish(client, iter_that_fails(), made)
    assert releases(client) == [made]


def test_a_generation_already_there_is_served_by_a_new_release_without_writing(client):
    first = publish_queries(client, 1, "milk")
    again = release(1, 1, student="s2")
    again = type(again)("r2", "g1", "s2", again.task, again.night, 1, 1)
    publish(client, iter_that_fails(), again)
    assert current_release(client) == again
    assert rollback(client) == first


def iter_that_fails(after=0):
    yield from rows(*[f"query {number}" for number in range(after)])
    raise OSError("the disk went away")


def test_a_publish_that_dies_between_chunks_leaves_the_old_release_and_the_next_cleans_up(client):
    old = publish_queries(client, 1, "milk")
    with pytest.raises(PublishError, match=r"r2 was not published: the disk went away.*same command again"):
        publish(client, iter_that_fails(after=CHUNK + 10), release(2, 3 * CHUNK))
    assert current_release(client) == old
    assert releases(client) == [old]
    assert len(keys_of(client, "g2")) == CHUNK  # the chunk before the crash
    new = publish_queries(client, 3, "bread")
    assert keys_of(client, "g2") == set()
    assert client.smembers(GENERATIONS) == {b"g1", b"g3"}
    assert current_release(client) == new


def test_a_generation_that_died_half_written_can_be_published_again_under_its_name(client):
    with pytest.raises(PublishError):
        publish(client, iter_that_fails(after=CHUNK), release(1, CHUNK))
    made = publish_queries(client, 1, "milk")
    assert current_release(client) == made
    assert keys_of(client, "g1") == {query_key("g1", "milk"), manifest_key("g1")}


def test_a_lost_entry_is_noticed_before_the_release_is_switched(client):
    old = publish_queries(client, 1, "milk")

    def entries():
        yield from rows(*[f"query {number}" for number in range(CHUNK)])
        client.delete(query_key("g2", "query 5") if client.exists(query_key("g2", "query 5")) else "none")
        yield from rows("the last")
        client.delete(query_key("g2", "query 5"))

    with pytest.raises(PublishError, match=f"{CHUNK} entries were written but {CHUNK - 1} are there"):
        publish(client, entries(), release(2, CHUNK + 1))
    assert current_release(client) == old
    assert not client.exists(manifest_key("g2"))


@pytest.mark.parametrize(
    ("entries", "count", "says"),
    [
        (rows("milk"), 2, "says 2 entries, got 1"),
        (rows("milk", "milk"), 2, "'milk' comes twice"),
        (rows("Milk"), 1, "'Milk' is not in normal form"),
        (rows(""), 1, "'' is not in normal form"),
    ],
)
def test_entries_that_are_not_what_they_must_be_are_refused(client, entries, count, says):
    with pytest.raises(PublishError, match=says):
        publish(client, entries, release(1, count))
    assert current_release(client) is None


def test_a_generation_name_that_could_reach_other_keys_is_refused(client):
    made = release("1:*", 1)
    with pytest.raises(PublishError, match=r"got 'g1:\*'"):
        publish(client, rows("milk"), made)


def test_an_empty_generation_may_be_published(client):
    assert publish_queries(client, 1) == current_release(client)


def test_rollback_goes_back_one_release_at_a_time_and_then_refuses(client):
    first, second, third = (publish_queries(client, number, "milk") for number in (1, 2, 3))
    assert current_release(client) == third
    assert rollback(client) == second == current_release(client)
    assert rollback(client) == first == current_release(client)
    with pytest.raises(PublishError, match="no release before r1"):
        rollback(client)
    assert rollback(client, "r3") == third == current_release(client)
    assert releases(client) == [first, second, third]


def test_after_a_rollback_the_next_release_goes_back_to_what_it_replaced(client):
    first, second = publish_queries(client, 1, "milk"), publish_queries(client, 2, "milk")
    rollback(client)
    third = publish_queries(client, 3, "milk")
    assert releases(client) == [second, first, third]
    assert rollback(client) == first


def test_rollback_says_what_it_cannot_do(client):
    with pytest.raises(PublishError, match="no release to go back from"):
        rollback(client)
    publish_queries(client, 1, "milk")
    with pytest.raises(PublishError, match="wanted release r9, got no such one; there are: r1"):
        rollback(client, "r9")


def test_three_generations_are_kept_and_older_ones_unlinked(client):
    for number in range(1, 6):
        publish_queries(client, number, "milk")
    assert [bool(keys_of(client, f"g{number}")) for number in range(1, 6)] == [False, False, True, True, True]
    with pytest.raises(PublishError, match="release r1: its generation g1 is gone"):
        rollback(client, "r1")
    assert current_release(client).release == "r5"


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
        assert parse_entry(client.get(query_key("g1", "milk"))).author == "teacher"


def test_redis_that_dies_while_a_generation_is_written_leaves_the_old_release(tmp_path):
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        old = publish_queries(client, 1, "milk")

        def entries():
            yield from rows(*[f"query {number}" for number in range(CHUNK)])
            with closing(connect(url)) as other:
                other.shutdown(nosave=True)
            yield from rows("the last")

        with pytest.raises(ServiceError, match="wanted Redis at"):
            publish(client, entries(), release(2, CHUNK + 1))
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        assert current_release(client) == old
        publish_queries(client, 3, "bread")
        assert keys_of(client, "g2") == set()


def test_an_error_names_the_address_without_the_password():
    client = connect(f"redis://user:secret@127.0.0.1:{free_port()}/0")
    with pytest.raises(ServiceError, match=r"redis://127.0.0.1:\d+") as caught:
        current_release(client)
    assert "secret" not in str(caught.value)


def test_a_url_that_is_none_is_refused():
    with pytest.raises(SettingsError, match=r"wanted redis://host:6379/0"):
        connect("localhost:6379")


def test_a_full_redis_is_a_publish_error_and_the_old_release_is_served(client):
    old = publish_queries(client, 1, "milk")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 200_000)
    try:
        with pytest.raises(PublishError, match=r"r2 was not published.*maxmemory"):
            publish_queries(client, 2, *[f"query {number}" for number in range(3 * CHUNK)])
    finally:
        client.config_set("maxmemory", 0)
    assert current_release(client) == old


def test_a_foreign_value_in_the_release_key_is_explained(client):
    client.set(RELEASE, "theirs")
    with pytest.raises(PublishError, match=r"holds no release.*another program"):
        current_release(client)


def test_a_reader_never_sees_a_release_whose_entries_are_not_there(client, redis_url):
    seen, done = set(), threading.Event()

    def read():
        with closing(Redis.from_url(redis_url)) as reader:
            while not done.is_set():
                if serving := current_release(reader):
                    seen.add((serving.release, reader.exists(query_key(serving.generation, "query 0"))))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 4):
        publish_queries(client, number, *[f"query {n}" for n in range(2_000)])
    rollback(client)
    done.set()
    reader.join()
    assert {there for _, there in seen} == {1}
