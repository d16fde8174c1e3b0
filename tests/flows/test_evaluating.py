"""`stillhouse evaluate` and the comparison with the student being served, on a stand-in for `vllm serve`: what the real
one answers, the night of conftest.py measures.
"""

import json
import shutil
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from rich.console import Console

from evals.gate import Thresholds
from flows import students
from flows.evaluate import compare, earlier_answers
from flows.evaluating import evaluate_student
from flows.night import Night
from flows.screen import Screen
from flows.settings import ROOT, load_settings
from flows.tables import evaluation_table
from labels.errors import InputError, SettingsError
from labels.files import read_json, write_manifest, write_parquet
from labels.records import Release
from labels.semantic_roles import SemanticRoles
from labels.services import Launch, shared_service
from student.registry import METRICS, figures_of
from tests.flows.night_by_hand import begin, label, roles

BASE = ROOT / "demo" / "models" / "student-base"
RIGHT, WRONG = [f"w{number} tea" for number in range(40)], [f"w{number} milk" for number in range(10)]
TRAINED, NEAR, CUT = "green kettle", "kettle green", "short cut"


def gold_rows():
    rows = [(query, "tea") for query in RIGHT] + [(query, "juice") for query in WRONG]
    rows += [(query, "kettle") for query in (TRAINED, NEAR)] + [(CUT, "cut")]
    return [{"query": query, "product": product, "brand": "", "attributes": []} for query, product in rows]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A work folder with two students, `new` and `old`, that learnt from one query; gold; general questions and a text."""
    folder = tmp_path_factory.mktemp("evaluating")
    work = folder / "work"
    table = pa.table({"query": [TRAINED], "value": [SemanticRoles(product="tea", brand="", attributes=[]).to_json()]})
    write_parquet(work / "datasets" / "d" / "train.parquet", table)
    write_parquet(work / "datasets" / "d" / "preferences.parquet", table)
    write_manifest(work / "datasets" / "d", rows=1)
    for name in ("old", "new"):
        shutil.copytree(BASE, work / "students" / name)
        write_manifest(work / "students" / name, dataset="d")
    (folder / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gold_rows()))
    general = [
        {"messages": [{"role": "user", "content": f"say {word}"}], "answer": "Hello"} for word in ("hello", "bye")
    ]
    (folder / "general.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*general, {"text": "once upon a time"}])
    )
    changes = {"work": str(work), "gold.path": str(folder / "gold.jsonl"), "evaluate.requests": 20}
    changes |= {"evaluate.concurrency": [1, 4], "evaluate.general": str(folder / "general.jsonl")}
    return load_settings("laptop", changes)


@contextmanager
def served(settings, model):
    """The stand-in, where the student's server lies: whoever needs that finds it running. Gives its URL."""

    def launch(port):
        command = [sys.executable, "-m", "tests.flows.fake_vllm", str(port), str(model)]
        return Launch(command, f"http://127.0.0.1:{port}", {"PYTHONPATH": str(ROOT)})

    def healthy(url):
        try:
            return httpx.get(f"{url}/health").is_success
        except httpx.HTTPError:
            return False

    with shared_service(settings.folder / "services" / model.name, "a stand-in", launch, healthy, 30) as url:
        yield url


@pytest.fixture(scope="module")
def measured(settings):
    """What `stillhouse evaluate --latency` makes of `new`, and how often each path of its server was asked."""
    new = settings.folder / "students" / "new"
    with served(settings, new) as url, served(settings, BASE):
        found = evaluate_student(settings, None, "new", latency=True)
        return found, httpx.get(f"{url}/asked").json()


def test_figures_are_those_of_what_the_server_answered(measured):
    found, asked = measured
    assert (found["queries"], found["left_out"]) == (51, 2), "what it was trained on, and what is near, is left out"
    assert found["invalid_rate"] == round(1 / 51, 4)
    assert found["score"]["recall"] == round(40 / 51, 4)
    assert found["score"]["precision"] == round(40 / 50, 4)
    assert asked["/v1/chat/completions"] == 51 + 16 + 20 + 20 + 2, "each query once, the load, two general questions"
    assert [one["at_once"] for one in found["latency"]] == [1, 4]
    assert found["size"]["parameters"] == 1_115_264
    assert found["size"]["gib"] == pytest.approx((BASE / "model.safetensors").stat().st_size / 2**30)
    assert {one["by"] for one in found["slices"]} == {"length", "language", "values"}
    assert json.loads(Path(found["file"]).read_text())["score"] == found["score"]


def test_general_ability_is_asked_of_the_base_and_of_the_student(measured):
    general = measured[0]["general"]
    assert (general["questions"], general["tokens"], general["accuracy_before"], general["accuracy_loss"]) == (
        2,
        3,
        0.5,
        0,
    )
    assert general["perplexity_after"] == pytest.approx(2.718, abs=0.001)


def test_the_table_shows_them(measured):
    console = Console(width=200)
    with console.capture() as shown:
        console.print(evaluation_table(measured[0]))
    for words in (
        "51 queries (2 more left out",
        "all fields",
        "0.784",
        "values",
        "1.96%",
        "general accuracy",
        "4 at once",
    ):
        assert words in shown.get()


def test_on_a_narrow_screen_the_path_it_was_written_to_is_whole(measured):
    console = Console(width=60)
    with console.capture() as shown:
        console.print(evaluation_table(measured[0]))
    assert "…" not in shown.get()
    assert measured[0]["file"] in "".join(shown.get().split())


def test_what_was_asked_once_is_not_asked_again(settings, measured):
    again = evaluate_student(settings, None, "new", latency=True)
    assert again == measured[0]
    log = (settings.folder / "services" / "new" / "service.log").read_text()
    assert "vllm" not in log.lower(), "a server was started for it"


def test_the_base_is_measured_as_a_student_that_learnt_nothing(settings):
    with served(settings, BASE):
        found = evaluate_student(settings, None, "base", latency=False)
    assert (found["student"], found["queries"], found["left_out"]) == ("student-base", 53, 0)
    assert (found["general"], found["latency"]) == (None, None)


def test_no_student_no_data_and_nothing_held_out_are_refused(settings, tmp_path):
    with pytest.raises(SettingsError, match=r"no student of-yesterday in .* it has old, new"):
        evaluate_student(settings, None, "of-yesterday", latency=False)
    with pytest.raises(SettingsError, match="wanted --data FILE"):
        evaluate_student(load_settings("laptop", {"work": str(settings.folder)}), None, "new", latency=False)
    (tmp_path / "seen.csv").write_text(f"query,product,brand,attributes\n{TRAINED},kettle,,\n")
    with pytest.raises(InputError, match="trained on each of the 1 queries"):
        evaluate_student(settings, str(tmp_path / "seen.csv"), "new", latency=False)
    empty = load_settings("laptop", {"work": str(tmp_path)})
    with pytest.raises(SettingsError, match="it has none"):
        evaluate_student(empty, settings.gold.path, None, latency=False)


def test_a_variant_that_ships_is_measured_whole_and_its_card_says_its_own_figures(tmp_path):
    right = dict.fromkeys(RIGHT, "tea") | {query: query.split()[0] for query in WRONG}  # which the variant alone knows
    labels = [label(number, query=query, value=roles("tea")) for number, query in enumerate(right)]
    asks = {"student__quantised": ["int8"], "evaluate__requests": 4, "evaluate__concurrency": [1]}
    night = begin(tmp_path, labels, gold=right, **asks)
    new, variant = (night.work / "students" / name for name in ("new", "new-int8"))
    recipe = {"base": str(BASE), "rank": 8, "alpha": 16, "epochs": 1, "learning_rate": 0.1}
    parity = {"max_logit_difference": 0, "cast_same_next_token": 1, "cast_same_answers": 1, "queries": 1}
    facts = {"adapter": "a", "dataset": "d", "parent": None, "recipe": recipe, "parity": parity, "dtype": "float32"}
    for folder, more in ((new, {}), (variant, {"weight_error": 0.01})):
        shutil.copytree(BASE, folder)
        write_manifest(folder, **facts, **more, parameters=1_115_264, created="2026-01-01")
    with served(night.settings, new), served(night.settings, variant):
        shipped, [check], measured = students.evaluate_student(night, new, None)
    assert (shipped, check.passed) == (variant, True)
    assert measured.student.recall == 1
    own, whole = (figures_of(read_json(folder / METRICS)) for folder in (variant, new))
    assert [{one.name: one.value for one in figures}["recall"] for figures in (own, whole)] == [1, 35 / 45]
    assert "| recall | 1 |" in (variant / "README.md").read_text()


def release(student, task="semantic_roles"):
    return Release("r1", "g1", student, task, "n", "v", 1, 1, 1)


@pytest.fixture
def night(settings):
    with ExitStack() as own:
        yield Night("x", settings, Screen(Console(quiet=True)), own)


def test_the_student_being_served_is_asked_the_same_but_for_what_it_was_trained_on(settings, night):
    old, new = (settings.folder / "students" / name for name in ("old", "new"))
    queries = [*RIGHT, *WRONG, NEAR]
    with served(settings, old):
        earlier, why_not = earlier_answers(night, new, release("old"), queries)
    assert (list(earlier), why_not) == ([*RIGHT, *WRONG], "")
    wanted = {query: SemanticRoles(product="tea", brand="", attributes=[]) for query in queries}
    given = {query: wanted[query] if query in RIGHT else None for query in queries}
    found = compare(release("old"), why_not, wanted, given, earlier, "gold")
    assert (found.served, found.queries, found.score.recall) == ("old", 50, 0.8)
    assert found.difference == pytest.approx(2 * 40 / (40 + 50) - 2 * 40 / (50 + 50))
    assert found.interval[0] <= found.difference <= found.interval[1]
    shutil.rmtree(old)  # gone, as an old student may be: its answers are kept
    assert earlier_answers(night, new, release("old"), [*RIGHT, "never asked"])[0].keys() == set(RIGHT)
    assert "no answer of it is kept" in earlier_answers(night, new, release("old"), ["never asked"])[1]


def test_what_can_not_be_compared_says_why(settings, night):
    new = settings.folder / "students" / "new"
    for served_release, reason in (
        (None, "nothing is released yet"),
        (release("new"), "it is the one being served"),
        (release("old", "rewrites"), "release r1 answers another task, rewrites"),
        (release("gone"), "gone is not in"),
    ):
        answers, why_not = earlier_answers(night, new, served_release, RIGHT)
        assert not answers
        assert why_not.startswith(reason)
        assert compare(served_release, why_not, {}, {}, answers, "gold").why_not == why_not


def test_the_gate_takes_its_thresholds_from_the_settings(settings):
    assert Thresholds(**settings.gate.model_dump()).delta == settings.gate.delta
