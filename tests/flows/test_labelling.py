"""`stillhouse label`: the forecast, the labelling, what a second one asks, and why."""

import fcntl
import json

import pyarrow.parquet as pq
import pytest

from demo.write import write_demo
from flows.environment import prepare
from flows.labelling import explain_one, forecast_labelling, run_labelling
from flows.settings import load_settings
from labels.errors import BusyError, SettingsError
from labels.records import Verdict
from labels.semantic_roles import SemanticRoles
from labels.split import split_of
from labels.warehouse import Warehouse
from tests.flows.command import stillhouse

pytestmark = pytest.mark.timeout(600)
QUERIES = 150


class Shop:
    """A small shop, and labelling on it: the functions that `stillhouse label` calls."""

    def __init__(self, folder, catalogue=None):
        write_demo(folder / "shop", rows=2_000, queries=QUERIES)
        self.work, self.catalogue = folder / "work", catalogue or folder / "shop" / "catalogue.parquet"
        self.log = folder / "shop" / "log.parquet"

    def settings(self, **changes):
        files = {"log.path": str(self.log), "catalogue.path": str(self.catalogue), "work": str(self.work)}
        more = {name.replace("__", "."): value for name, value in changes.items()}
        prepare(offline=True)
        return load_settings("laptop", files | {"catalogue.product": "product"} | more, {})

    def labels(self):
        with Warehouse(self.work / "warehouse").connect() as con:
            return con.execute("SELECT query, status, facts, scores, night FROM labels ORDER BY created").fetchall()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Shop(tmp_path_factory.mktemp("labelling"))


@pytest.fixture(scope="module")
def forecast(shop):
    """From the command itself, in a process of its own."""
    files = ["--log", shop.log, "--catalogue", shop.catalogue, "--work", shop.work]
    price = ["--set", "teacher.price.million_in=2", "--set", "teacher.price.million_out=8"]
    done = stillhouse("label", *files, "--set", "catalogue.product=product", *price, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert not shop.labels()
    assert list((shop.work / "nights").iterdir()) == []
    assert list((shop.work / "warehouse" / "queries").iterdir()) == []
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def first(shop, forecast):
    return run_labelling(shop.settings(teacher__price__gpu_hour=2.5, teacher__flip_sample=40))


def test_a_dry_run_asks_nothing_and_shows_prompts_tokens_and_cost(forecast, first):
    assert forecast["to_ask"] == forecast["queries"] == first["queries"] > QUERIES / 2
    assert len(forecast["prompts"]) == 3
    for prompt in forecast["prompts"]:
        assert prompt["messages"][-1]["content"].endswith(f"<query>{prompt['query']}</query>")
        assert "<facts>" in prompt["messages"][-1]["content"]
    assert forecast["tokens_counted"]
    assert forecast["tokens_in"] == pytest.approx(first["tokens"]["in"], rel=0.05)
    assert forecast["seconds"] is None  # no labelling by this teacher was measured yet
    expected = (2 * forecast["tokens_in"] + 8 * forecast["tokens_out"]) / 1e6
    assert forecast["cost"] == pytest.approx(expected)


def test_every_query_is_labelled_and_the_figures_of_the_run_are_stored(shop, first):
    assert first["asked_teacher"] == first["queries"] == first["labelled"] + first["rejected"] + first["failed"]
    assert len(shop.labels()) == first["queries"]
    assert first["tokens"]["in"] > first["tokens"]["cached"] > 0
    assert 0 < first["prefix_cache_hit_rate"] < 1
    cost = first["cost"]
    assert cost["total"] == pytest.approx(2.5 * first["teacher_seconds"] / 3600, rel=0.01)
    assert cost["per_accepted_label"] == pytest.approx(cost["total"] / first["labelled"])
    assert first["flips"]["asked"] == 40
    low, high = first["flips"]["interval"]
    assert low <= first["flips"]["rate"] <= high
    stored = json.loads((shop.work / "nights" / first["night"] / "labelling.json").read_text())
    assert stored["tokens"] == first["tokens"]
    assert stored["model"].startswith("teacher-")
    for _, _, facts, scores, _ in shop.labels():
        assert len(facts) == len(scores) == 3
        assert scores == sorted(scores, reverse=True)


def test_a_second_run_asks_nothing_and_says_why(shop, first):
    again = run_labelling(shop.settings())
    assert (again["asked_teacher"], again["labelled"], again["flips"]) == (0, first["labelled"], None)
    query = shop.labels()[0][0]
    why = explain_one(shop.settings(), query.upper())
    assert not why["asked_again"]
    assert "not asked: a label with the same task, query, teacher, prompt and facts is held" in why["why"]


def test_a_forecast_after_a_run_knows_the_teachers_speed(shop, first):
    known = forecast_labelling(shop.settings())
    assert (known["to_ask"], known["seconds"], known["prompts"]) == (0, 0.0, [])
    assert f"{first['asked_teacher']:,} queries" in known["basis"]


def test_a_query_no_log_held_is_said_to_be_in_none(shop, first):
    why = explain_one(shop.settings(), "an unheard of thing")
    assert why["asked_again"]
    assert "no label is held for this query" in why["why"]
    assert "in no log so far" in why["in_the_log"]


def test_a_changed_catalogue_relabels_exactly_what_it_touches_and_why_says_so(shop, first, tmp_path):
    table = pq.read_table(shop.catalogue)
    fewer = tmp_path / "catalogue.parquet"
    pq.write_table(table.slice(table.num_rows // 8), fewer)
    before = {query: facts for query, _, facts, _, _ in shop.labels()}
    done = run_labelling(shop.settings(catalogue__path=str(fewer)))
    after = {query: facts for query, _, facts, _, night in shop.labels() if night == done["night"]}
    assert 0 < len(after) == done["asked_teacher"] < first["queries"]
    assert all(facts != before[query] for query, facts in after.items())
    query = next(iter(after))
    why = explain_one(shop.settings(), query)
    assert not why["asked_again"]  # under the old catalogue its first label still stands
    pq.write_table(table.slice(0, 1), fewer)
    why = explain_one(shop.settings(catalogue__path=str(fewer)), query)
    assert why["asked_again"]
    assert "its facts changed: " in why["why"]


def test_verified_answers_are_shown_beside_queries_like_them_but_never_gold_nor_the_query_itself(shop, first, tmp_path):
    house = Warehouse(shop.work / "warehouse")
    with house.connect() as con:
        rows = con.execute(
            "SELECT identity, query, value FROM labels WHERE status = 'accepted' ORDER BY length(query) DESC LIMIT 50"
        ).fetchall()
    [(identity, query, value), (other, gold, told)] = [row for row in rows if split_of(row[1]) == "train"][:2]
    task = {"task": SemanticRoles.name, "task_version": SemanticRoles.version()}
    house.add_verdicts([Verdict(identity, query, "ann", "right", value, **task)])
    house.add_verdicts([Verdict(other, gold, "ann", "right", told, **task)])
    (tmp_path / "gold.csv").write_text(f"query,product,brand,attributes\n{gold}s,,,[]\n")
    settings = shop.settings(
        teacher__examples=3, teacher__example_similarity=0.3, gold__path=str(tmp_path / "gold.csv")
    )
    like = explain_one(settings, f"{query} now")
    assert like["examples"] == [f"{query} => {value}"]
    assert explain_one(settings, query)["examples"] == []
    assert explain_one(settings, gold)["examples"] in ([], [f"{query} => {value}"])


def test_another_teacher_asks_for_everything_and_why_names_it(shop, first):
    query = shop.labels()[0][0]
    why = explain_one(shop.settings(teacher__samples=3), query)
    assert why["asked_again"]
    assert "the teacher changed (teacher-" in why["why"]
    assert "best of 3 at 0.7" in why["why"]


def test_two_runs_at_once_are_refused_clearly(shop, first):
    with (shop.work / "night.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for run in (run_labelling, forecast_labelling):
            with pytest.raises(BusyError, match="another night is running"):
                run(shop.settings())


def test_url_and_replicas_at_once_are_refused():
    with pytest.raises(SettingsError, match="url and replicas name two engines"):
        load_settings("laptop", {"teacher.url": "http://127.0.0.1:1/v1", "teacher.replicas": 2}, {})
