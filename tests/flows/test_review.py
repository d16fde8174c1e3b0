import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from flows.night import Night
from flows.review import calibrate, checked_labels
from flows.screen import Screen
from flows.settings import load_settings
from tests.labels.shop import label, verdict


@pytest.fixture
def begin(tmp_path):
    """A function: labels, verdicts and gold products by query, to a night that has got as far as judging."""

    def begun(labels, verdicts=(), gold=None):
        changes = {"work": str(tmp_path)}
        if gold:
            rows = [{"query": query, "product": right, "brand": "", "attributes": ""} for query, right in gold.items()]
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / "gold.parquet")
            changes["gold.path"] = str(tmp_path / "gold.parquet")
        night = Night(
            "n1", load_settings(changes=changes, environment={}), Screen(Console(file=io.StringIO(), width=200))
        )
        night.folder.mkdir(parents=True)
        night.warehouse.add_labels(labels)
        night.warehouse.add_verdicts(verdicts)
        pq.write_table(pa.table({"identity": [one.identity for one in labels]}), night.folder / "requests.parquet")
        return night

    return begun


def sure(number, confidence=0.9, **other):
    return label(number, confidence={"product": confidence, "brand": 1.0}, **other)


def said(night):
    return night.screen.console.file.getvalue()


def test_a_calibration_is_written_and_said_in_one_line(begin):
    gold = {f"query {number}": "milk" if number % 4 else "tea" for number in range(400)}
    night = begin([sure(number) for number in range(400)], gold=gold)
    found = calibrate(night)
    assert (found.n, found.source, found.calibrated(0.9)) == (400, "gold", 0.75)
    assert json.loads((night.folder / "calibration.json").read_text()) == found.to_json()
    assert "confidence calibrated on 400 labels by gold: expected error 0.150 before, 0.0" in said(night)


def test_too_few_checked_labels_write_nothing_and_say_how_many_are_missing(begin):
    night = begin([sure(number) for number in range(300)], [verdict(number) for number in range(150)])
    assert calibrate(night) is None
    assert not (night.folder / "calibration.json").exists()
    assert "not calibrated: 150 checked labels, 50 more are needed" in said(night)


def test_a_label_is_as_sure_as_its_least_sure_field_and_right_as_people_say(begin):
    verdicts = [verdict(1), verdict(2, "corrected"), verdict(3, "cant_tell")]
    found = checked_labels(begin([sure(1, 0.8), sure(2, 0.7), sure(3, 0.6), sure(4, 0.5)], verdicts))
    assert sorted(found.points) == [(0.7, False), (0.8, True)]
    assert (found.source, found.simulated) == ("verdicts", False)


def test_whichever_of_gold_and_people_knows_more_is_asked(begin):
    labels = [sure(number) for number in range(5)]
    verdicts = [verdict(number, simulated=True) for number in range(4)]
    found = checked_labels(begin(labels, verdicts, {"query 0": "milk", "query 1": "tea", "unasked": "x"}))
    assert (found.source, found.simulated, len(found.points)) == ("verdicts", True, 4)


def test_labels_without_a_confidence_or_not_accepted_say_nothing_of_it(begin):
    labels = [sure(1), label(2, confidence={}), sure(3, status="rejected"), label(4, status="failed", value=None)]
    found = checked_labels(begin(labels, gold={f"query {number}": "milk" for number in range(5)}))
    assert found.points == [(0.9, True)]


def test_a_night_that_nobody_checked_has_no_point(begin):
    assert checked_labels(begin([sure(1)])).points == []
