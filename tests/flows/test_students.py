import json
from contextlib import closing

import pytest

from cache.client import connect
from cache.layout import RELEASE, RELEASES, release_json
from cache.release import current_release, releases, rollback
from flows.night import begin_night
from flows.publish import publish_release
from flows.screen import Screen
from flows.settings import load_settings
from flows.students import collect_students, list_students
from labels.files import write_manifest
from student.registry import Figure, record_metrics
from tests.flows.night_by_hand import head_of, write_queries

CATALOGUE = "title,brand\nVerdant Machine Mango Smoothie,Verdant Machine\n"
HEAD = head_of("oat milk")


@pytest.fixture
def night(tmp_path):
    """A night on a real Redis with six students, each with a head of its own."""
    (tmp_path / "log.csv").write_text("query\noat milk\n")
    (tmp_path / "catalogue.csv").write_text(CATALOGUE)
    changes = {"work": str(tmp_path / "work"), "log.path": str(tmp_path / "log.csv")}
    changes |= {"catalogue.path": str(tmp_path / "catalogue.csv"), "student.keep": "1"}
    with begin_night(load_settings("laptop", changes), Screen()) as night:
        write_queries(night, ["oat milk"])
        for number in range(1, 7):
            folder = student(night, number)
            folder.mkdir(parents=True)
            write_manifest(
                folder, adapter=f"a{number}", created=f"2026-01-0{number}T00:00:00", dataset="d", parent=None
            )
        yield night


def student(night, number):
    return night.work / "students" / f"student-{number}"


def head(number):
    return head_of(f"oat milk {number}")


def test_a_forced_release_says_so_for_ever_and_the_same_content_let_through_is_another(night):
    proper = publish_release(night, HEAD, student(night, 1))
    forced = publish_release(night, HEAD, student(night, 1), ("student", "teacher"))
    assert proper.forced == ()
    assert forced.forced == ("student", "teacher")
    assert forced.release != proper.release
    assert forced.generation == proper.generation
    assert publish_release(night, HEAD, student(night, 1), ("teacher", "student")).created == forced.created
    with closing(connect(night.redis_url)) as client:
        assert current_release(client) == forced
        assert releases(client) == [proper, forced]
        again = publish_release(night, HEAD, student(night, 1))
        assert again.release == proper.release
        assert [one.forced for one in releases(client)] == [("student", "teacher"), ()]
        assert rollback(client) == forced


def test_a_release_from_before_there_was_force_is_read_as_not_forced(night):
    made = publish_release(night, HEAD, student(night, 1))
    old = json.loads(release_json(made))
    assert "forced" not in old, "a service of before would not know the word"
    with closing(connect(night.redis_url)) as client:
        client.set(RELEASE, json.dumps(old))
        client.delete(RELEASES)
        client.rpush(RELEASES, json.dumps(old))
        assert current_release(client) == made
        assert releases(client) == [made]


def test_students_of_releases_that_can_be_served_stay_however_old(night):
    for number in (1, 2, 3, 4):
        publish_release(night, head(number), student(night, number))
    record_metrics(student(night, 4), "n", [Figure("F1", 0.8765, "gold", 0.8, 0.9)], {})
    assert collect_students(night, student(night, 1)) == ["student-5"]  # three generations are kept, and one beside
    assert collect_students(night) == ["student-1"]
    rows = list_students(night.settings)
    assert [row["version"] for row in rows] == ["student-2", "student-3", "student-4", "student-6"]
    assert [row["serving"] for row in rows] == [False, False, True, False]
    assert [row["f1"] for row in rows] == [None, None, 0.8765, None]


def test_a_work_folder_without_students_or_redis_has_none(tmp_path):
    assert list_students(load_settings("laptop", {"work": str(tmp_path / "work")})) == []
    assert not (tmp_path / "work" / "redis").exists()
