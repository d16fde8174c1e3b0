"""releases, rollback and diff, as typed, on a real Redis."""

import json
from contextlib import ExitStack

import pytest
import typer
from typer.testing import CliRunner

from cache.client import connect
from cache.layout import entry, manifest_key
from cache.memory import MIB
from cache.publish import publish
from cache.server import local_redis
from flows.release_commands import add_release_commands
from flows.releases import changes, list_releases
from flows.settings import load_settings
from labels.errors import InputError
from tests.cache import shop
from tests.flows import night_by_hand
from tests.flows.night_by_hand import label

HOSTILE = "milk [red]<script>\u202eklim"
HEADS = {
    "r1": {"oat milk": "milk", "tea": "tea", "rice": "rice", "bread": "bread"},
    "r2": {"oat milk": "oat milk", "tea": "tea", "bread": "loaf", HOSTILE: HOSTILE},
    "r3": {"oat milk": "oat milk"},
}
LOG = ["bread", "oat milk", "tea", HOSTILE, "rice"]  # most frequent first: 1000 / rank


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A work folder with a night's log and three releases, the second of them served again since."""
    folder = tmp_path_factory.mktemp("work")
    night_by_hand.begin(folder, [label(number, query=query) for number, query in enumerate(LOG)])
    with ExitStack() as stack:
        client = stack.enter_context(connect(stack.enter_context(local_redis(folder / "redis"))))
        for number, (name, head) in enumerate(HEADS.items(), start=1):
            rows = [(query, entry(shop.value(product), 0.9, "teacher")) for query, product in head.items()]
            forced = ("student",) if name == "r2" else ()
            publish(client, rows, shop.release(number, len(rows), f"s{number}", traffic_share=0.8, forced=forced))
        yield folder


@pytest.fixture
def run(work):
    """Runs a command on that folder; its output."""
    app = typer.Typer()
    add_release_commands(app)

    def run(*arguments):
        done = CliRunner().invoke(app, [*arguments, "--work", str(work)], env={"COLUMNS": "200"})
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run


def test_rollback_serves_the_release_before_or_the_one_named_and_releases_say_which_is_served(run):
    def serving():
        return [row["release"] for row in json.loads(run("releases", "--json")) if row["serving"]]

    assert serving() == ["r3"]
    assert "release r2 is served: 4 entries of night n2" in run("rollback")
    assert serving() == ["r2"]
    assert "release r3 is served: 1 entries of night n3" in run("rollback", "r3")
    assert serving() == ["r3"]


def test_releases_say_what_each_holds_covers_takes_and_was_forced_past(run):
    rows = {row["release"]: row for row in json.loads(run("releases", "--json"))}
    assert {name: (row["entries"], row["student"], row["forced"], row["kept"]) for name, row in rows.items()} == {
        "r1": (4, "s1", [], True),
        "r2": (4, "s2", ["student"], True),
        "r3": (1, "s3", [], True),
    }
    assert 100 < rows["r1"]["bytes"] < MIB
    assert rows["r1"]["traffic_share"] == 0.8
    table = run("releases")
    assert "80.0%" in table
    assert " KiB" in table
    assert "forced" in table


def test_diff_tells_labels_added_removed_and_changed_the_most_frequent_first(run):
    found = json.loads(run("diff", "r1", "r2", "--json"))
    assert (found["before"], found["after"]) == ("r1", "r2")
    assert [(one["query"], one["change"]) for one in found["changes"]] == [
        ("bread", "changed"),
        ("oat milk", "changed"),
        (HOSTILE, "added"),
        ("rice", "removed"),
    ]
    first, last = found["changes"][0], found["changes"][-1]
    assert (first["before"]["product"], first["after"]["product"], first["traffic"]) == ("bread", "loaf", 1000.0)
    assert (last["before"]["product"], last["after"]) == ("rice", None)
    total = sum(1000 / rank for rank in range(1, 6))
    assert found["changed"] == {"labels": 2, "traffic_share": round(1500 / total, 6)}
    assert found["added"] == {"labels": 1, "traffic_share": round(250 / total, 6)}
    assert found["removed"]["labels"] == 1
    back = json.loads(run("diff", "r2", "r1", "--json"))
    assert (back["added"], back["removed"]) == (found["removed"], found["added"])


def test_diff_without_names_is_what_the_current_release_changed_and_a_limit_leaves_the_totals(run):
    found = json.loads(run("diff", "--json", "--limit", "1"))
    assert (found["before"], found["after"], found["removed"]["labels"]) == ("r2", "r3", 3)
    assert [one["query"] for one in found["changes"]] == ["bread"]
    assert len(json.loads(run("diff", "--json", "--limit", "0"))["changes"]) == 3


def test_what_shoppers_typed_drives_no_terminal(run):
    shown = run("diff", "r1", "r2")
    assert "[red]<script>" in shown
    assert "\u202e" not in shown
    assert "r1 → r2: 2 changed" in shown


def test_a_release_that_is_not_there_or_is_kept_no_more_is_named_with_those_that_are(run, work):
    with pytest.raises(InputError, match="r9 is no release; there are: r1, r2, r3"):
        run("diff", "r9")
    with pytest.raises(InputError, match="r1x is no release; there are: r1, r2, r3"):
        run("diff", "r1", "r1x")
    with local_redis(work / "redis") as url, connect(url) as client:
        kept = client.get(manifest_key("g1"))
        client.delete(manifest_key("g1"))
        try:
            with pytest.raises(InputError, match=r"r1 is kept no more .*there are: r2, r3"):
                run("diff", "r1")
            rows = json.loads(run("releases", "--json"))
            assert [(row["kept"], row["bytes"] is None) for row in rows] == [
                (False, True),
                (True, False),
                (True, False),
            ]
        finally:
            client.set(manifest_key("g1"), kept)


def test_before_the_first_release_there_is_nothing_to_list_and_nothing_to_compare(tmp_path):
    settings = load_settings(changes={"work": str(tmp_path)}, environment={})
    assert list_releases(settings) == []
    with pytest.raises(InputError, match="nothing is released yet; publish one first"):
        changes(settings, None, None, 10)


def test_each_command_teaches(run):
    for name, words in {
        "releases": "rollback RELEASE",
        "rollback": "in one atomic step",
        "diff": "by the last night's",
    }.items():
        assert words in " ".join(run(name, "--help").split())
