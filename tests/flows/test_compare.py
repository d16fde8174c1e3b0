"""What `stillhouse compare` compares. That it trains and serves its students is what a night's tests show of the same code."""

import json

from flows.compare import as_it_was, unfiltered
from flows.settings import ROOT, load_settings
from labels.files import write_text
from tests.labels.shop import label


def test_unfiltered_labels_are_all_that_the_teacher_answered():
    labels = [
        label("a"),
        label("r", status="rejected"),
        label("f", status="failed", value=None),
    ]
    assert [(one.identity, one.status) for one in unfiltered(labels)] == [("ida", "accepted"), ("idr", "accepted")]


def test_a_night_is_compared_with_the_settings_it_ran_with_in_the_folder_where_it_lies_now(tmp_path):
    then = load_settings(changes={"work": "elsewhere", "student.epochs": 9, "gold.path": "gold.csv"}, environment={})
    write_text(tmp_path / "settings.json", then.model_dump_json(exclude={"cache": {"redis_url"}, "teacher": {"url"}}))
    assert "redis_url" not in json.loads((tmp_path / "settings.json").read_text())["cache"]
    now = load_settings(changes={"work": str(tmp_path), "cache.redis_url": "redis://secret@here"}, environment={})
    found = as_it_was(now, tmp_path)
    assert (found.student.epochs, found.gold.path) == (9, "gold.csv")
    assert (found.cache.redis_url, found.folder) == ("redis://secret@here", tmp_path)


def test_a_night_is_compared_from_any_directory(tmp_path, monkeypatch):
    for name in ("gold.csv", "logs/monday.csv", "base/config.json"):
        write_text(tmp_path / name, "")
    monkeypatch.chdir(tmp_path)
    changes = {"gold.path": "gold.csv", "log.path": "logs/*.csv", "student.data.replay": "some/hub-dataset"}
    changes |= {"student.base": "base", "teacher.model": "logs"}  # the latter is a server's name for it
    write_text(tmp_path / "settings.json", load_settings(changes=changes, environment={}).model_dump_json())
    monkeypatch.chdir("/")
    found = as_it_was(load_settings(environment={}), tmp_path)
    assert (found.gold.path, found.log.path) == (str(tmp_path / "gold.csv"), str(tmp_path / "logs" / "*.csv"))
    assert (found.student.base, found.student.data.replay) == (str(tmp_path / "base"), "some/hub-dataset")
    assert found.teacher.model == "logs"
    shipped = load_settings(changes={"student.base": "demo/models/student-base"}, environment={}).student.base
    assert shipped == str(ROOT / "demo/models/student-base")
