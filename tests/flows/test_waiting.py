"""The night waits for people: in its process at a terminal, suspended by Prefect where it is scheduled."""

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial

import pytest

from evals.queue import ReviewQueue
from flows.review import queue_of, sample_labels
from flows.settings import ROOT, load_settings
from flows.waiting import reviewed, wait_here, waiting_file
from labels.errors import SettingsError
from labels.verdicts import Verdicts
from tests.flows import night_by_hand
from tests.flows.command import environment
from tests.flows.night_by_hand import label, roles, said
from tests.flows.waiting_deployment import settings_in


@pytest.fixture
def begin(tmp_path):
    return partial(night_by_hand.begin, tmp_path)


def answer(queue, count, decision="right", value=None):
    for _ in range(count):
        [given] = queue.take("ann", 1)
        queue.submit("ann", given.lease, decision, value or given.item.label.value)


def test_it_goes_on_when_the_judgement_passes_the_gate_before_all_is_reviewed(begin):
    night = begin([label(number) for number in range(400)], review__sample=120, review__overlap=0.0)
    audit = sample_labels(night)
    assert not reviewed(night, audit)
    answer(queue_of(night), 10)
    assert not reviewed(night, audit)
    answer(queue_of(night), 45)
    assert not reviewed(night, audit)  # it would pass by now, but half is the least
    answer(queue_of(night), 15)
    assert reviewed(night, audit)


def test_it_goes_on_when_all_is_reviewed_though_the_gate_will_refuse(begin):
    night = begin([label(number) for number in range(60)], review__sample=20, review__overlap=0.0)
    audit = sample_labels(night)
    answer(queue_of(night), 19, "corrected", roles("tea"))
    assert not reviewed(night, audit)
    answer(queue_of(night), 1, "corrected", roles("tea"))
    assert reviewed(night, audit)


def test_at_a_terminal_it_says_where_people_review_and_goes_on_as_soon_as_they_have(begin):
    night = begin(
        [label(number) for number in range(60)], review__sample=20, review__overlap=0.0, review__wait_for_people="12h"
    )
    audit = sample_labels(night)
    people = threading.Timer(0.5, answer, (queue_of(night), 20, "corrected", roles("tea")))
    people.start()
    wait_here(night, audit)
    people.join()
    assert "people review at http://127.0.0.1:8018 until " in said(night)
    assert len(night.warehouse.verdicts()) == 20


def test_the_deadline_ends_the_waiting(begin):
    night = begin([label(number) for number in range(60)], review__wait_for_people="1s")
    wait_here(night, sample_labels(night))
    assert night.warehouse.verdicts() == []


@pytest.mark.parametrize("text", ["12", "0h", "12 hours", "-1h", "1.5h"])
def test_a_time_that_is_none_is_refused(text):
    with pytest.raises(SettingsError, match="wait_for_people"):
        load_settings(changes={"review.wait_for_people": text}, environment={})


@pytest.fixture
def deployed(tmp_path):
    """A served deployment that waits for people (waiting_deployment.py), and a function that asks its Prefect server."""
    work = tmp_path / "work"
    work.mkdir()
    with (tmp_path / "said.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.waiting_deployment", str(work)],
            cwd=ROOT,
            env=environment() | {"PREFECT_RUNNER_POLL_FREQUENCY": "1"},
            stdout=log,
            stderr=log,
        )

    def post(path, **body):
        service = next((work / "prefect").glob("service.json"), None)
        if service is None:
            return None
        url = json.loads(service.read_text())["url"] + path
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    yield work, post, tmp_path / "said.txt"
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def until(look, log, seconds=150):
    give_up = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.3)
    return found


def test_a_scheduled_night_is_suspended_with_a_link_and_resumed_by_enough_verdicts(deployed):
    work, post, log = deployed
    [deployment] = until(lambda: post("/deployments/filter"), log)
    create = f"/deployments/{deployment['id']}/create_flow_run"
    run = until(lambda: post(create, state={"type": "SCHEDULED"}), log)

    def is_in(state):
        return post("/flow_runs/filter", flow_runs={"id": {"any_": [run["id"]]}, "state": {"name": {"any_": [state]}}})

    until(lambda: is_in("Suspended"), log)
    file = waiting_file(settings_in(str(work)), run["id"])
    assert json.loads(file.read_text()) | {"until": ""} == {"flow_run": run["id"], "night": "n1", "until": ""}
    [artifact] = until(lambda: post("/artifacts/filter", artifacts={"key": {"any_": ["people"]}}), log)
    assert "](http://127.0.0.1:8018)" in artifact["data"]
    assert not (work / "went_on.txt").exists()
    answer(ReviewQueue(Verdicts(work / "warehouse" / "verdicts.sqlite")), 20, "corrected", roles("tea"))
    until(lambda: is_in("Completed"), log)
    assert (work / "went_on.txt").read_text() == "n1"  # the night that it was
    assert not file.exists()
