import threading
from contextlib import closing
from dataclasses import replace

import pytest

from cache.client import connect
from cache.layout import GENERATIONS, NAMES, RELEASE, RELEASES, bucket_key, manifest_key, release_json
from cache.publish import publish
from cache.release import current_release, releases, remove_unkept, rollback, standing, switch
from labels.errors import PublishError, ServiceError
from tests.cache.shop import keys_of, publish_queries, release, rows


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
    with pytest.raises(PublishError, match="no release to go back to"):
        rollback(client)
    publish_queries(client, 1, "milk")
    with pytest.raises(PublishError, match="wanted release r9, got no such one; there are: r1"):
        rollback(client, "r9")


@pytest.mark.parametrize("broken", [None, "SET", "RPUSH"])
def test_a_release_record_lost_or_spoiled_is_mended_as_the_message_says_by_a_rollback(client, broken):
    made = [publish_queries(client, number, "milk") for number in (1, 2)]
    client.delete(RELEASE)
    if broken:
        client.execute_command(broken, RELEASE, "junk")
        with pytest.raises(
            PublishError, match=f"holds no release .*`redis-cli DEL '{RELEASE}'`, then `stillhouse rollback`"
        ):
            rollback(client)
        client.delete(RELEASE)
    assert rollback(client) == made[1] == current_release(client)
    client.delete(RELEASE)
    assert rollback(client, "r1") == made[0] == current_release(client)
    assert set(standing(client)) == set(made)


@pytest.mark.parametrize("lost", [manifest_key("g1"), bucket_key("g1", 1)])
def test_rollback_refuses_a_generation_that_is_not_whole(client, lost):
    publish_queries(client, 1, *map(str, range(50)))
    second = publish_queries(client, 2, "milk")
    client.delete(lost)
    with pytest.raises(PublishError, match=r"r1: its generation g1 is gone .* or has buckets lost"):
        rollback(client)
    assert current_release(client) == second


def test_servers_may_refuse_a_rollback(client):
    publish_queries(client, 1, "milk")
    second = publish_queries(client, 2, "milk")

    def refuse(target):
        raise ServiceError(f"no server has {target.release} ready")

    with pytest.raises(ServiceError, match="no server has r1 ready"):
        rollback(client, ready=refuse)
    assert current_release(client) == second


def test_a_rollback_does_not_undo_a_release_that_came_meanwhile(client, redis_url):
    publish_queries(client, 1, "milk")
    publish_queries(client, 2, "milk")

    def meanwhile(_):
        with closing(connect(redis_url)) as other:
            publish_queries(other, 3, "milk")

    with pytest.raises(PublishError, match="can't serve release r1 instead of r2: meanwhile r3 is served"):
        rollback(client, ready=meanwhile)
    assert current_release(client).release == "r3"


def test_a_pointer_that_is_gone_is_set_again_by_the_next_publish(client):
    first = publish_queries(client, 1, "milk")
    client.delete(RELEASE)
    assert current_release(client) is None
    assert standing(client) == [first]
    second = publish_queries(client, 2, "bread")
    assert current_release(client) == second
    assert rollback(client) == first


def test_standing_are_the_releases_whose_generation_is_there(client):
    made = [publish_queries(client, number, "milk") for number in range(1, 6)]
    assert standing(client) == made[2:]
    assert releases(client) == made
    client.delete(RELEASES)
    assert standing(client) == made[4:]


def test_what_the_old_layout_published_is_explained(client):
    client.set(RELEASE, release(1, 1).to_json())
    with pytest.raises(PublishError, match=r"in layout 1, wanted 2.*redis-cli DEL"):
        current_release(client)
    with pytest.raises(PublishError, match="in layout 1, wanted 2"):
        publish_queries(client, 2, "milk")


def test_a_publisher_whose_generation_another_removed_does_not_switch_to_it(client, redis_url):
    old = publish_queries(client, 1, "milk")

    def meanwhile(_):
        with closing(connect(redis_url)) as other:
            remove_unkept(other)

    with pytest.raises(PublishError, match="another publisher removed its generation g2 meanwhile"):
        publish(client, rows("bread"), release(2, 1), ready=meanwhile)
    assert current_release(client) == old


def test_a_generation_half_removed_is_not_switched_to_and_goes_at_the_next_publish(client):
    publish_queries(client, 1, *map(str, range(50)))
    publish_queries(client, 2, "milk")
    client.hset(GENERATIONS, "g1", -release(1, 50).buckets)  # as a publisher leaves it that died while it removed g1
    with pytest.raises(PublishError, match="another publisher removed its generation g1"):
        rollback(client)
    for number in (3, 4, 5):
        publish_queries(client, number, "milk")
    assert keys_of(client, "g1") == set()
    assert set(client.hgetall(GENERATIONS)) == {b"g3", b"g4", b"g5"}


def test_publishers_at_once_leave_one_whole_release_and_one_history(client, redis_url):
    publish_queries(client, 0, "milk")
    refused = []

    def publish_some(numbers):
        with closing(connect(redis_url)) as other:
            for number in numbers:
                try:
                    publish_queries(other, number, *map(str, range(300)))
                except PublishError as error:  # the other one removed what this one was writing
                    refused.append(str(error))

    writers = [threading.Thread(target=publish_some, args=(range(start, start + 8),)) for start in (10, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    known = releases(client)
    assert len(known) + len(refused) == 17
    assert len({one.release for one in known}) == len(known)
    assert known[-1] == current_release(client)
    assert rollback(client) == known[-2]
    remove_unkept(client, kept=1)
    assert {name.decode() for name in client.hgetall(GENERATIONS)} == {known[-1].generation, known[-2].generation}
    there = {key.decode() for key in client.keys(f"{NAMES}{{*")}
    assert there == keys_of(client, known[-1].generation) | keys_of(client, known[-2].generation)


def test_a_switch_writes_the_release_as_readers_parse_it(client):
    made = publish_queries(client, 1, "milk")
    assert client.get(RELEASE) == release_json(made).encode()
    again = replace(made, release="r2")
    switch(client, again)
    assert [one.release for one in releases(client)] == ["r1", "r2"]
