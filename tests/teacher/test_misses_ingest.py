import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labels.errors import InputError
from labels.normalise import MAX_QUERY_CHARS, normalise
from teacher.log import ingest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("misses")


def read(folder, queries, misses, sessions=None, **told):
    """What became of the misses, and the night's queries with their traffic."""
    columns = {"query": pa.array(queries, pa.string())} | ({"session": sessions} if sessions else {})
    pq.write_table(pa.table(columns), folder / "log.parquet")
    names = {name: name for name in columns}
    found = ingest(folder / "log.parquet", names, folder / "out.parquet", folder / "scratch", misses=misses, **told)
    rows = pq.read_table(folder / "out.parquet").to_pylist()
    assert found.queries == len(rows) == len({row["query"] for row in rows})
    missed = found.missed
    assert missed.times == sum(times for times, _ in misses.values())
    assert missed.times == missed.taken + missed.in_log + sum(missed.dropped.values())
    assert found.rows == len(queries) == found.kept + sum(found.dropped.values())
    return missed, {row["query"]: row["traffic"] for row in rows}


def test_what_the_log_has_not_got_comes_in_and_what_it_has_does_not_count_twice(folder):
    missed, traffic = read(folder, ["oat milk", "oat milk", "tea"], {"oat milk": (5, 1), "new tea": (3, 2)})
    assert traffic == {"oat milk": 2, "new tea": 3, "tea": 1}
    assert (missed.taken, missed.queries, missed.in_log, missed.dropped) == (3, 1, 5, {})


def test_misses_are_normalised_masked_and_judged_as_the_logs_queries_are(folder):
    misses = {
        "  Oat   MILK ": (1, 1),  # the log has it, in normal form
        "Straßen Karte": (2, 1),
        "strassen karte": (1, 1),
        "send to jo@example.com": (4, 1),
        "ann@example.com": (3, 1),
        "": (1, 1),
        "\x00 \x1b": (1, 1),
        "x" * (MAX_QUERY_CHARS + 1): (2, 1),
        "y" * 100_000: (2, 1),
    }
    missed, traffic = read(folder, ["oat milk"], misses)
    assert traffic == {"oat milk": 1, "strassen karte": 3, "send to (email)": 4}
    assert (missed.taken, missed.queries, missed.in_log) == (7, 2, 1)
    assert missed.dropped == {"empty": 2, "long": 4, "personal": 3}


def test_with_sessions_wanted_a_miss_needs_as_many_days_and_a_log_that_does_not_know_better(folder):
    queries, sessions = ["oat milk"] * 3 + ["jo's secret"], ["a", "b", "c", "a"]
    misses = {"jo's secret": (9, 9), "told daily": (3, 3), "told in one go": (50, 2)}
    missed, traffic = read(folder, queries, misses, sessions, min_sessions=3)
    assert traffic == {"oat milk": 3, "told daily": 3}
    assert (missed.taken, missed.dropped) == (3, {"rare": 59})


def test_of_more_misses_than_a_night_takes_the_most_frequent_come_in_and_what_the_log_has_takes_no_place(folder):
    misses = {"oat milk": (90, 1), "asked often": (5, 1), "ASKED often": (4, 1), "asked": (8, 1), "robot b": (1, 1)}
    misses |= {"robot a": (1, 1), "": (70, 1)}
    missed, traffic = read(folder, ["oat milk"], misses, most_misses=3)
    assert traffic == {"asked often": 9, "asked": 8, "oat milk": 1, "robot a": 1}
    assert (missed.taken, missed.queries, missed.in_log, missed.dropped) == (18, 3, 90, {"empty": 70, "many": 1})


def test_the_bands_are_cut_by_all_traffic(folder):
    missed, traffic = read(folder, ["oat milk"] * 50 + ["tea"], {"new": (49, 1)}, head_share=0.9)
    assert missed.taken == 49
    bands = {row["query"]: row["band"] for row in pq.read_table(folder / "out.parquet").to_pylist()}
    assert bands == {"oat milk": "head", "new": "head", "tea": "tail"}
    assert sum(traffic.values()) == 100


def test_misses_do_not_make_a_log_usable(folder):
    with pytest.raises(InputError, match="holds no usable query"):
        read(folder, [" "], {"oat milk": (5, 1)})


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["oat milk", "OAT milk"]),
        st.tuples(st.integers(1, 9), st.integers(1, 3)),
        max_size=6,
    )
)
def test_any_text_is_taken_in_known_or_dropped(folder, misses):
    _, traffic = read(folder, ["oat milk"], misses)
    assert set(traffic) <= {"oat milk", *(normalise(text) for text in misses)}
    assert traffic["oat milk"] == 1
