"""The night, end to end: real vLLM, Redis, Prefect and TRL, killed with -9 at five stages; then the day after it."""

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from demo.settings import demo_settings
from flows.settings import ROOT
from labels.warehouse import Warehouse
from teacher.label import AT_RISK, COMMIT
from tests.evals.test_report import open_in_browser
from tests.flows.command import OPEN_GATE, environment, error_of, left_of, stillhouse
from tests.flows.conftest import HOSTILE, ROWS

pytestmark = pytest.mark.timeout(1500)

KEYS = {
    "queries", "labelled", "rejected", "failed", "asked_teacher", "teacher", "student", "lookup", "head_entries",
    "head_traffic_share", "release", "seconds",
}  # fmt: skip
STAGES = [
    "ingest", "retrieve", "label", "sample", "judge", "calibrate", "watch", "train", "evaluate", "gate", "publish", "look up",
    "choose", "report",
]  # fmt: skip
COMMANDS = [
    "night", "label", "demo", "lookup", "serve", "labels", "schedule", "report", "releases", "rollback", "diff", "doctor",
]  # fmt: skip


def labels_of(work):
    """What every label says, by identity."""
    with Warehouse(work / "warehouse").connect() as con:
        rows = con.execute("SELECT identity, query, status, value, reason, raw, facts, prompt FROM labels").fetchall()
    return {row[0]: row[1:] for row in rows}


def test_a_night_killed_at_five_stages_ends_with_the_labels_of_one_that_was_not(night):
    assert list(night.killed) == ["label", "train", "evaluate", "publish", "report"]
    for stage, said in night.killed.items():
        begun = [line for line in said.splitlines() if line in STAGES]
        at = STAGES.index(stage)
        assert begun[-1] in STAGES[at : at + 2], said  # a short stage may end before the kill arrives
    ours, reference = labels_of(night.work), labels_of(night.reference)
    assert ours.keys() == reference.keys()
    # A kill changes which queries share the engine's batches, and a batch may round another way: see the flip rate.
    same = sum(ours[identity] == reference[identity] for identity in ours)
    assert same >= 0.99 * len(ours)


def test_each_query_has_one_label_and_no_label_comes_twice(night):
    rows, identities, queries = night.sql(
        "SELECT count(*), count(DISTINCT identity), count(DISTINCT query) FROM labels"
    )[0]
    assert rows == identities == queries > 2 * COMMIT


def test_a_kill_costs_at_most_what_was_in_flight(night):
    total = night.sql("SELECT count(*) FROM labels")[0][0]
    kept = night.labelled["label"]
    assert set(kept) == {COMMIT}
    assert night.labelled["train"][: len(kept)] == kept
    assert sum(night.labelled["train"]) == total
    assert all(rows <= COMMIT <= AT_RISK for rows in night.labelled["train"])
    assert f"asked the teacher {total - sum(kept):,}\n" in night.killed["train"]
    for stage in ("evaluate", "publish", "report"):
        assert night.labelled[stage] == night.labelled["train"]
        assert "asked the teacher nothing: every label was held" in night.killed[stage]


def test_rows_in_are_labelled_and_rejected_and_failed(night):
    summary = night.summaries()[-1]
    assert summary["queries"] == summary["labelled"] + summary["rejected"] + summary["failed"]
    by_status = Counter(status for (status,) in night.sql("SELECT status FROM labels"))
    for figure, status in (("labelled", "accepted"), ("rejected", "rejected"), ("failed", "failed")):
        assert summary[figure] == by_status[status]


def test_no_verdict_is_given_twice(night):
    verdicts, labels, simulated = night.sql(
        "SELECT count(*), count(DISTINCT identity), count(*) FILTER (simulated) FROM verdicts"
    )[0]
    assert verdicts == labels == simulated == 300


def test_a_killed_training_leaves_no_adapter_and_a_finished_one_is_kept(night):
    assert not night.trained["train"]
    assert night.trained["evaluate"]
    assert len(night.adapters) == 1
    assert "nothing to train: the adapter is there" in night.killed["publish"]


def test_the_next_night_adopts_what_a_killed_one_left_running(night):
    assert {command.split()[0].rpartition("/")[2] for command in night.left["label"].values()} <= {"python3", "python"}
    assert any("prefect server start" in command for command in night.left["label"].values())
    servers = {night.students[stage]["pid"] for stage in ("evaluate", "publish", "report")}
    assert len(servers) == 1, "the student's server was started twice"
    assert servers <= set(night.left["report"])


def test_the_night_that_gets_through_leaves_no_process(night):
    assert night.running == {}
    assert not list(night.work.rglob("service.json"))


def test_the_summary_has_the_figures_the_issue_names(night):
    summary = night.summaries()[-1]
    assert summary.keys() >= KEYS
    for author in ("teacher", "student", "lookup"):
        for figure in ("precision", "recall", "f1"):
            low, high = summary[author][f"{figure}_interval"]
            assert 0 <= low <= summary[author][figure] <= high <= 1
    assert list(summary["seconds"]) == STAGES
    assert 0 < summary["head_traffic_share"] <= 1
    assert summary["published"]
    log = summary["log"]
    assert log["rows"] == ROWS + len(HOSTILE)
    assert log["head"] + log["torso"] + log["tail"] == log["queries"] == summary["queries"]
    [index] = summary["retrieval"]["indexes"]
    assert (index["kind"], index["recall_at_10"], index["entries"]) == ("flat", 1.0, summary["retrieval"]["facts"])
    assert sum(summary["lookup_sources"].values()) == summary["lookup"]["queries"]


def test_one_sees_every_stage_and_at_the_end_the_table_and_what_to_try_next(night):
    assert [line for line in night.said.splitlines() if line in STAGES] == STAGES
    for what in ("queries in", "asked the teacher", "teacher on gold", "student on gold's tail", "head", "release"):
        assert re.search(rf"^ *{what} ", night.table, re.M), night.table
    assert night.table.count("\n  stillhouse ") == 5
    assert "Traceback" not in night.said


def test_a_second_night_asks_the_teacher_nothing_and_says_so(night):
    assert night.again.returncode == 0, night.again.stderr
    before, after = night.summaries()[-2:]
    assert "asked the teacher nothing: every label was held" in night.again.stderr
    assert "0: every label was held already" in night.again.stdout
    assert after["asked_teacher"] == after["asked_student"] == 0
    for key in KEYS - {"seconds", "asked_teacher"}:
        assert after[key] == before[key]


def test_a_second_night_trains_nothing_and_starts_no_vllm(night):
    assert "nothing to train: the adapter is there; merged before" in night.again.stderr
    assert {path: path.stat().st_mtime for path in night.work.glob("adapters/*/manifest.json")} == night.adapters
    assert "starting vLLM" not in night.again.stderr
    assert "is what is served already" in night.again.stderr


def test_one_release_is_served(night):
    done = stillhouse("releases", "--work", night.work, "--json")
    [release] = json.loads(done.stdout)
    assert release["serving"]
    assert release["release"] == night.summaries()[-1]["release"]
    assert release["entries"] == night.summaries()[-1]["head_entries"]


def test_a_head_query_is_answered_from_the_cache_however_it_is_typed(night, day):
    assert day.from_cache["source"] == "cache"
    assert day.from_cache["query"] == day.head
    assert day.from_cache["release"] == night.summaries()[-1]["release"]
    assert set(day.from_cache["value"]) == {"product", "brand", "attributes"}


def test_an_unseen_query_is_answered_by_the_student_or_not_at_all_and_it_says_why(day):
    assert day.from_student["source"] in {"student", "none"}
    assert bool(day.from_student["value"]) != bool(day.from_student["reason"])


def test_the_service_answers_over_http(night, day):
    health, ready, schema, empty, head, tail = day.answers.values()
    assert health == (200, {"status": "ok"})
    assert ready == (200, {"status": "ready", "release": night.summaries()[-1]["release"]})
    assert "/v1/lookup" in schema[1]["paths"]
    assert empty[0] == 400
    assert "wanted a query" in empty[1]["error"]
    assert head[0] == 200
    assert (head[1]["source"], head[1]["value"]) == ("cache", day.from_cache["value"])
    assert tail[0] == 200
    assert tail[1]["source"] in {"student", "none"}


def test_a_taken_port_is_one_message(day):
    assert re.search(r"port \d+ of 127.0.0.1 is taken .*--port", error_of(day.taken))


def test_the_service_adopts_redis_and_vllm_of_a_killed_night_and_on_sigterm_leaves_neither(night, day):
    assert day.code == 0, day.said
    assert "Traceback" not in day.said
    prefect = {pid: command for pid, command in night.left["report"].items() if "prefect server" in command}
    assert set(night.left["report"]) > set(prefect)
    assert day.running == prefect  # it has no use for that one; the next night has


def test_labels_summarises_and_takes_sql(night):
    everything = json.loads(stillhouse("labels", "--work", night.work, "--json").stdout)
    assert sum(row["labels"] for row in everything) == night.sql("SELECT count(*) FROM labels")[0][0]
    assert sum(row["reviewed"] for row in everything) == 300
    sql = "SELECT status, count(*) AS n FROM labels GROUP BY status ORDER BY status"
    rows = json.loads(stillhouse("labels", sql, "--work", night.work, "--json").stdout)
    assert [(row["status"], row["n"]) for row in rows] == night.sql(sql)
    table = stillhouse("labels", "--work", night.work).stdout
    assert "semantic_roles" in table
    assert "accepted" in table


def test_labels_why_explains_one_label(night):
    query = night.sql("SELECT query FROM labels SEMI JOIN verdicts USING (identity) ORDER BY query LIMIT 1")[0][0]
    [row] = json.loads(stillhouse("labels", "why", query, "--work", night.work, "--json").stdout)
    assert row["query"] == query
    assert "simulated" in row["verdict"]
    assert row["facts"]
    assert row["why"].startswith("held")
    [unknown] = json.loads(stillhouse("labels", "why", "never asked", "--work", night.work, "--json").stdout)
    assert "no label is held" in unknown["why"]


@pytest.mark.parametrize("sql", ["SELEC query FROM labels", "SELECT nothing FROM labels", "SELECT 1 FROM gold"])
def test_bad_sql_is_one_message_that_names_the_views(night, sql):
    message = error_of(stillhouse("labels", sql, "--work", night.work))
    assert "that SQL did not run" in message


def test_a_rollback_with_nothing_before_it_is_refused_and_changes_nothing(night):
    message = error_of(stillhouse("rollback", "--work", night.work))
    release = night.summaries()[-1]["release"]
    assert f"no release before {release}, the first one; it stays served" in message
    assert json.loads(stillhouse("releases", "--work", night.work, "--json").stdout)[0]["serving"]


def test_report_prints_a_path_that_can_be_pasted(night):
    done = stillhouse("report", "--no-open", "--work", night.work, columns=40)
    assert done.stdout == f"{night.work}/nights/{night.summaries()[-1]['night']}/report.html\n"


def test_the_report_says_simulated_and_opens_in_a_browser_without_errors(night, tmp_path):
    page = sorted(night.work.glob("nights/*/report.html"))[-1]
    dom, log = open_in_browser(page, tmp_path / "profile")
    assert "CONSOLE" not in log
    assert dom.count("<svg ") == 9
    assert "simulated verdicts" in page.read_text()


def test_the_server_says_what_the_merged_student_says(night):
    [student] = [path.parent for path in night.work.glob("students/*/manifest.json")]
    served = json.loads((student / "served.json").read_text())
    assert served["within"] is True
    assert served["queries"] == 64
    assert night.summaries()[-1]["served_parity"] == served


def test_a_student_is_listed_with_its_figures_and_has_a_card_and_its_adapter(night):
    [row] = json.loads(stillhouse("students", "--work", night.work, "--json").stdout)
    summary = night.summaries()[-1]
    assert (row["version"], row["serving"]) == (summary["student_model"], True)
    assert row["f1"] == summary["student"]["f1"]
    student = night.work / "students" / row["version"]
    assert sorted(path.name for path in (student / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    [shown] = re.findall(r"^\| F1 \| ([\d.]+) \|", (student / "README.md").read_text(), re.M)
    assert float(shown) == pytest.approx(summary["student"]["f1"], abs=1e-4)


def test_the_gate_gives_a_reason_for_each_of_its_seven_checks(night):
    checks = night.summaries()[-1]["gate"]
    names = ["rows", "teacher", "student", "invalid", "served", "latency", "general"]
    assert [check["name"] for check in checks] == names
    assert all(check["message"] for check in checks)


def test_redis_down_at_publish_time_ends_the_night_and_leaves_the_release_as_it_was(night):
    before = stillhouse("releases", "--work", night.work, "--json").stdout
    changes = {key.replace("__", "."): json.dumps(value) for key, value in demo_settings(str(night.work)).items()}
    changes |= {"student.epochs": "1", "cache.redis_url": "redis://127.0.0.1:1/0"}
    sets = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    done = stillhouse("night", "--work", night.work, *sets, *OPEN_GATE)
    message = error_of(done)
    assert "wanted Redis at redis://127.0.0.1:1" in message
    assert "run the same command again" in message
    assert stillhouse("releases", "--work", night.work, "--json").stdout == before
    assert left_of(night.work) == {}


def test_every_command_is_in_the_help():
    done = stillhouse("--help", columns=100)
    assert done.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^\W*{command} +\w", done.stdout, re.M), command


def test_the_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['stillhouse', '--help']\n"
        "from flows.cli import run\n"
        "assert run() == 0\n"
        "print('imported', *{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    imported = set(done.stdout.splitlines()[-1].split())
    assert {"imported", "typer", "flows"} <= imported
    assert not imported & {"torch", "vllm", "faiss", "prefect", "transformers", "duckdb", "redis", "fastapi"}
