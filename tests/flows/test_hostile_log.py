"""What strangers type, through the real teacher: the small demo's log holds such rows (see conftest.HOSTILE)."""

import json

import pytest

from labels.normalise import normalise
from labels.semantic_roles import SemanticRoles
from tests.flows.command import stillhouse
from tests.flows.conftest import HOSTILE, INJECTION, ROWS

pytestmark = pytest.mark.timeout(1500)


def test_every_row_is_counted_as_dropped_or_labelled(night):
    log = night.summaries()[-1]["log"]
    assert log["rows"] == ROWS + len(HOSTILE)
    assert (log["dropped_empty"], log["dropped_long"], log["dropped_personal"], log["masked"]) == (1, 1, 1, 1)
    assert f"  {log['rows']:,} rows, 3 dropped, {log['queries']:,} distinct queries\n" in night.said
    assert log["queries"] == night.summaries()[-1]["queries"]
    held = {query for (query,) in night.sql("SELECT query FROM labels")}
    assert {query for query in HOSTILE if normalise(query) in held} == {
        query for query, fate in HOSTILE.items() if fate == "labelled"
    }
    assert "send it to (email)" in held


def test_what_is_personal_is_nowhere_in_the_work_folder(night):
    held = [path for path in night.work.rglob("*") if path.is_file() and path.parent.name != "shop"]
    assert len(held) > 10
    assert [path for path in held if b"jo.doe" in path.read_bytes()] == []


def test_a_query_that_is_an_instruction_is_labelled_as_data_like_any_other(night):
    [(raw, value, status)] = night.sql(f"SELECT raw, value, status FROM labels WHERE query = '{INJECTION}'")
    assert status in {"accepted", "rejected"}
    answer = SemanticRoles.parse(raw)
    assert answer.to_json() == value
    assert "shopper" not in raw, "it printed its instructions"


def test_no_control_character_reaches_the_labels_or_the_terminal(night):
    [(query,)] = night.sql("SELECT query FROM labels WHERE query LIKE 'oat milk %red'")
    assert query == "oat milk [31m red"
    table = stillhouse(
        "labels", f"SELECT query, chr(27) AS escape FROM labels WHERE query = '{query}'", "--work", night.work
    )
    assert query in table.stdout
    assert "\x1b" not in table.stdout
    texts = night.sql("SELECT query || value || array_to_string(facts, ' ') FROM labels WHERE value IS NOT NULL")
    assert all(text.isprintable() for (text,) in texts)


def test_the_real_engine_gives_every_field_a_confidence_above_0_and_at_most_1(night):
    given = [json.loads(text) for (text,) in night.sql("SELECT confidence FROM labels WHERE status = 'accepted'")]
    figures = [figure for fields in given for figure in fields.values()]
    assert all(fields.keys() == {"product", "brand", "attributes"} for fields in given)
    assert all(0 < figure <= 1 for figure in figures)
    assert min(figures) < 0.9 < max(figures)
