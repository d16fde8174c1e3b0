"""Who imports whom, and the schedule that Prefect keeps."""

import ast
import json
import signal
import subprocess
import time
import urllib.request
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from flows.settings import ROOT
from tests.flows.command import STILLHOUSE, environment, left_of

ROOMS = ["flows", "teacher", "student", "cache", "evals", "labels", "demo"]
MIDDLE = ["teacher", "student", "cache", "evals"]


def imports(room: str) -> set[tuple[str, str]]:
    """Every (file, package) that the room imports, wherever in the file it does."""
    found = set()
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                names = [node.module or ""]
            found |= {(path.name, name.partition(".")[0]) for name in names}
    return found


def test_the_walk_below_sees_imports_inside_functions():
    assert ("night.py", "cache") in imports("flows")
    assert ("nightly.py", "prefect") in imports("flows")
    assert ("engine_vllm.py", "vllm") in imports("teacher")


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "flows"])
def test_only_flows_imports_prefect(room):
    assert not {file for file, package in imports(room) if package == "prefect"}


@pytest.mark.parametrize("room", MIDDLE)
def test_the_middle_rooms_import_the_ground_floor_alone(room):
    assert not {(file, package) for file, package in imports(room) if package in set(ROOMS) - {room, "labels"}}


def test_the_ground_floor_imports_no_other_room():
    assert not {(file, package) for file, package in imports("labels") if package in set(ROOMS) - {"labels"}}


@pytest.fixture
def scheduler(tmp_path):
    """`stillhouse schedule` at two at night in Berlin, with no log named; its log, and its work folder."""
    work, log = tmp_path / "work", tmp_path / "said.txt"
    sets = ["schedule.cron=0 2 * * *", "schedule.timezone=Europe/Berlin"]
    command = [STILLHOUSE, "schedule", "--work", str(work), *(part for pair in sets for part in ("--set", pair))]
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT.parent,
            env=environment() | {"PREFECT_RUNNER_POLL_FREQUENCY": "1"},
            stdout=said,
            stderr=said,
        )
    yield process, work, log
    process.kill()
    process.wait()


def wait_for(look, what, log, seconds=120):
    """What `look` finds, once it finds something."""
    give_up = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < give_up, f"{what} did not come:\n{log.read_text()}"
        time.sleep(0.2)
    return found


def test_the_schedule_is_prefects_and_runs_the_night_and_ends_with_ctrl_c(scheduler):
    process, work, log = scheduler
    service = wait_for(lambda: list((work / "prefect").glob("service.json")), "the server", log)[0]
    url = json.loads(service.read_text())["url"]

    def post(path, **body):
        request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    [deployment] = wait_for(lambda: post("/deployments/filter"), "the deployment", log)
    assert deployment["name"] == "stillhouse-laptop"
    assert deployment["parameters"]["profile"] == "laptop"
    assert deployment["parameters"]["changes"]["work"] == str(work)
    runs = wait_for(lambda: post("/flow_runs/filter"), "a scheduled night", log)
    for run in runs:
        at = datetime.fromisoformat(run["expected_start_time"]).astimezone(ZoneInfo("Europe/Berlin"))
        assert (at.hour, at.minute) == (2, 0)

    create = f"/deployments/{deployment['id']}/create_flow_run"
    now = wait_for(lambda: post(create, state={"type": "SCHEDULED"}), "a night at once", log)
    chosen = {"id": {"any_": [now["id"]]}, "state": {"type": {"any_": ["FAILED", "CRASHED", "COMPLETED"]}}}
    [ended] = wait_for(lambda: post("/flow_runs/filter", flow_runs=chosen), "the night's end", log)
    assert ended["state"]["type"] == "FAILED"
    assert "no log is named; wanted --log FILE" in ended["state"]["message"]
    wait_for(lambda: "error: no log is named; wanted --log FILE" in log.read_text(), "the error's message", log)

    process.send_signal(signal.SIGINT)
    assert process.wait(120) in {0, 130}
    assert left_of(work) == {}
