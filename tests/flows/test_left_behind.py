"""What a night killed with -9 leaves running is never doubled and never left for good."""

import os
import signal
import subprocess
import sys
import time

import pytest

from flows.night import begin_night
from flows.screen import Screen
from flows.settings import ROOT, load_settings
from tests.cache.test_services import using
from tests.flows.command import STILLHOUSE, begun, environment, left_of, processes_of

STARTER = """
import sys, time
from pathlib import Path
from tests.cache.test_services import using
with using(Path(sys.argv[1])):
    print("running", flush=True)
    time.sleep(60)
"""


def starter(folder):
    """A process that starts a service and uses it: Python's own web server stands in for Redis and vLLM."""
    command = [sys.executable, "-c", STARTER, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def night_settings(tmp_path):
    (tmp_path / "log.csv").write_text("query\noat milk\n")
    (tmp_path / "catalogue.csv").write_text("title,brand,product\nOat Milk,Acme,milk\n")
    paths = {"log.path": str(tmp_path / "log.csv"), "catalogue.path": str(tmp_path / "catalogue.csv")}
    return load_settings("laptop", {"work": str(tmp_path / "work"), **paths})


def test_the_next_night_stops_what_it_has_no_use_for_itself(tmp_path, night_settings):
    folders = [tmp_path / "work" / "services" / "student-of-yesterday", tmp_path / "work" / "redis"]
    users = [starter(folder) for folder in folders]
    for user in users:
        assert user.stdout.readline() == "running\n"
    users[0].kill()  # the student's user is dead, Redis has one still
    users[0].wait()
    with begin_night(night_settings, Screen()):
        assert processes_of(folders[0])
    assert not processes_of(folders[0])
    assert len(processes_of(folders[1])) == 2, "a service in use was stopped"
    users[1].kill()
    users[1].wait()
    time.sleep(1)  # a night's name is its second
    with begin_night(night_settings, Screen()):
        pass
    assert not processes_of(folders[1])


def test_a_night_told_to_end_stops_what_it_started(tmp_path, night_settings):
    """By SIGTERM, as a supervisor or a container does it."""
    work, log = tmp_path / "work", tmp_path / "said.txt"
    sets = [f"--set={one}.path={tmp_path / one}.csv" for one in ("log", "catalogue")]
    with log.open("wb") as said:
        night = subprocess.Popen([STILLHOUSE, "night", "--work", work, *sets], env=environment(), stderr=said)
    try:
        give_up = time.monotonic() + 120
        while not begun("ingest")(log.read_text()):
            assert night.poll() is None, log.read_text()
            assert time.monotonic() < give_up
            time.sleep(0.1)
        assert len(processes_of(work)) > 1  # the night's own, and a server's
        night.send_signal(signal.SIGTERM)
        assert night.wait(120) == 130, log.read_text()
    finally:
        night.kill()
    assert "run the same command again to go on" in log.read_text()
    assert not left_of(work)


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 4, 8, 16, 32, 64])
def test_a_starter_killed_at_any_moment_leaves_no_service_that_nobody_can_find(tmp_path, milliseconds):
    user = starter(tmp_path)
    while not (tmp_path / "service.log").exists():  # from here on the process may exist
        time.sleep(0.001)
    time.sleep(milliseconds / 1000)
    os.kill(user.pid, signal.SIGKILL)
    user.wait()
    with using(tmp_path):
        assert len([command for command in processes_of(tmp_path).values() if "http.server" in command]) == 1
    assert not processes_of(tmp_path)
