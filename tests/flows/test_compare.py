"""What `stillhouse compare` compares. That it trains and serves its students is what a night's tests show of the same code."""

import json

from flows.compare import as_it_was, place_of, unfiltered
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


def test_a_night_is_compared_from_any_directory_and_wherever_its_work_folder_went(tmp_path, monkeypatch):
    work = tmp_path / "moved"
    for name in ("shop/gold.csv", "bases/base-1/config.json"):
        write_text(work / name, "")
    write_text(tmp_path / "logs" / "monday.csv", "")
    monkeypatch.chdir("/")
    shipped = "demo/models/student-base"
    changes = {"gold.path": "then/shop/gold.csv", "log.path": "logs/*.csv", "student.data.replay": "some/hub-dataset"}
    then = load_settings(changes={"work": "then", **changes}, environment={})
    write_text(work / "settings.json", then.model_dump_json())
    found = as_it_was(load_settings(changes={"work": str(work)}, environment={}), work)
    assert found.gold.path == str(work / "shop" / "gold.csv")
    assert found.log.path == str(tmp_path / "logs" / "*.csv")
    assert found.student.data.replay == "some/hub-dataset"
    assert place_of(shipped, work) == str(ROOT / shipped)
    assert place_of("/gone/work/bases/base-1", work) == str(work / "bases" / "base-1")
