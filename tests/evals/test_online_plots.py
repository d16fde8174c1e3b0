import re
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.calibration import Checked
from evals.online import BEFORE, LEAST_BEFORE, RULES, drifts, shortfall
from evals.online_plots import counted, drawn, misses, rows
from evals.report import ReportData, write_report

NOTHING = ReportData((), 0, Checked((), "gold", simulated=False), {}, (), ())
HOSTILE = "<script>alert(1)</script>\x00\u202e"
LAST = date(2026, 11, 20)


def day(back=0, cache=800, tail=90, student=100, none=10, **told):
    answers = {"cache": cache, "tail-cache": tail, "student": student, "none": none}
    latency = {source: {"p50": 0.5, "p99": 250.0} for source, count in answers.items() if count}
    base = {"day": (LAST - timedelta(days=back)).isoformat(), "answers": answers, "latency": latency, "forecast": 0.8}
    return base | {"misses": 200, "missed": 100, "new": 30, "lost": 0, "refused": {}, "unreadable": 0} | told


def page(folder, online):
    write_report({"night": "x", "online": online}, NOTHING, folder / "report.html")
    html = (folder / "report.html").read_text(encoding="utf-8")
    return html, " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def test_the_page_has_the_days_their_table_and_the_plots(tmp_path):
    days = [day(2, forecast=None, new=None), day(1), day(0, lost=7, refused={"queue full": 3})]
    online = {"days": days, "warnings": ["On 2026-11-20 the head answered too little."], "drift": []}
    html, words = page(tmp_path, online)
    names = ["hit-rate", "sources", "lookup-latency", "misses"]
    assert [name for name in re.findall(r'id="plot-([\w-]+)"', html) if name in names] == names
    assert html.count("<svg ") == len(names)
    for told in (
        "⚠ On 2026-11-20 the head answered too little.",
        "cache 800 80.0% 0.5 ms 250 ms",
        "queue full 3",
        "7 misses were lost",
        "about 30 of them not missed in the week before",
        "On 2026-11-20 the head answered 80.0% of the lookups; 80.0% was forecast.",
    ):
        assert told in words
    assert "#0" not in "".join(re.findall(r'style="[^"]*"', html)), "a stand-in colour was left in"


def test_before_the_first_day_the_page_says_how_to_come_by_one(tmp_path):
    for online in (None, {}, {"days": [], "warnings": [], "drift": []}):
        html, words = page(tmp_path, online)
        assert "No whole day (UTC) of lookups was counted yet." in words
        assert "<svg " not in html


def test_what_is_odd_about_a_day_is_drawn_or_said_and_never_breaks_the_page(tmp_path):
    slow = {"none": {"p50": 0.5, "p99": None}}
    odd = [
        day(9, cache=0, tail=0, student=0, none=5, new=None, latency=slow),
        day(0, cache=5, tail=0, student=0, none=0, missed=0, new=0, refused={HOSTILE: 2}, unreadable=1),
    ]
    html, words = page(tmp_path, {"days": odd, "warnings": [HOSTILE], "drift": [{"message": HOSTILE, "drifted": True}]})
    assert "<script" not in html
    assert "Processes whose counts could not be read: 1." in words
    assert rows({"days": odd[:1]}) == [
        {"source": "none", "answers": 5, "share": 1.0, "p50": "0.5 ms", "p99": "over 5 s"}
    ]
    assert all(plot.svg for plot in drawn({"days": odd[:1]}))
    assert misses(odd[1:]).words == "Not drawn: the head missed nothing."
    assert counted({}) == ""


def test_the_log_says_what_lookups_added_to_it(tmp_path):
    log = {"rows": 10, "queries": 8, "misses": 1234, "misses_taken": 210, "misses_queries": 180, "misses_in_log": 1000}
    log |= {"misses_dropped_long": 20, "misses_dropped_rare": 4, "misses_unreadable": 3}
    write_report({"night": "x", "log": log}, NOTHING, tmp_path / "report.html")
    words = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "10</strong> kept" in words  # misses are none of the log's rows
    assert (
        "Lookups missed 1,234 times; 210 of these came in as 180 queries that the log has not got; 1,000 were of queries "
        "in the log already; 24 were dropped; 3 entries could not be read."
    ) in words


@given(st.integers(0, 2000), st.integers(1, 2000), st.floats(0, 1))
def test_no_hit_rate_at_or_over_the_forecast_is_warned_of(hits, others, forecast):
    warned = shortfall(day(cache=hits, tail=0, student=others, none=0), forecast)
    if hits / (hits + others) >= forecast - 0.01:
        assert warned is None


@pytest.mark.parametrize(
    ("hits", "of", "warned"),
    [(7, 10, False), (70, 100, True), (700, 1000, True), (795_000, 1_000_000, False), (785_000, 1_000_000, True)],
)
def test_a_warning_wants_more_than_chance_and_more_than_a_point(hits, of, warned):
    found = shortfall(day(cache=hits, tail=0, student=of - hits, none=0), 0.8)
    assert bool(found) == warned
    if found:
        assert f"{hits / of:.1%} of {of:,} lookups" in found


WORSE = {
    "hit_rate": {"cache": 700, "student": 200},
    "new_share": {"new": 60},
    "none_share": {"student": 60, "none": 50},
}


@pytest.mark.parametrize("name", RULES)
def test_each_figure_drifts_by_its_own_rule_and_only_its_own(name):
    before = [day(back) for back in range(BEFORE, 0, -1)]
    assert not any(one.drifted for one in drifts([*before, day()]))
    found = {one.name: one for one in drifts([*before, day(**WORSE[name])])}
    assert found[name].drifted
    assert RULES[name].todo in found[name].message
    assert f"{found[name].last:.1%} on 2026-11-20, {found[name].before:.1%} on average" in found[name].message
    assert [one for one, told in found.items() if told.drifted] == [name]


def test_a_day_as_bad_as_one_in_the_week_before_is_no_drift():
    before = [day(back, **(WORSE["hit_rate"] if back == 7 else {})) for back in range(BEFORE, 0, -1)]  # last Friday too
    assert not any(one.drifted for one in drifts([*before, day(**WORSE["hit_rate"])]))


def test_nothing_is_said_of_drift_before_there_are_days_enough():
    assert drifts([]) == []
    assert drifts([day(back) for back in range(LEAST_BEFORE - 1, -1, -1)]) == []
    assert {one.name for one in drifts([day(back) for back in range(LEAST_BEFORE, -1, -1)])} == set(RULES)
