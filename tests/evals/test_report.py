import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evals.calibration import Checked, fit_calibration
from evals.gate import Figures, Thresholds, gate
from evals.judge import judge
from evals.metrics import score
from evals.plots import coverage, duration, judgement, quality, reliability
from evals.report import ReportData, write_report
from labels.records import Label
from labels.semantic_roles import SemanticRoles
from tests.evals.judged import reviewed

HOSTILE = "<script>console.error('run')</script><img src=x onerror=console.error('run')>\"'{{7*7}}\x00\u202e\ud800"
PLOTS = ["quality", "judgement", "coverage", "confidence", "times", "losses"]
NOTHING = ReportData((), 0, Checked((), "gold", simulated=False), (), (), ())
LABELLING = {
    "log": {
        "rows": 2000, "masked": 7, "dropped_empty": 3, "dropped_long": 1, "dropped_personal": 0, "dropped_rare": 96,
        "dropped_odd_reason": 0, "queries": 1000, "head": 100, "torso": 300, "tail": 600,
    },
    "retrieval": {"facts": 1580, "examples": 42, "indexes": [
        {"embedder": HOSTILE, "kind": "hnsw", "how": "updated", "entries": 1580, "added": 12, "removed": 4,
         "recall_at_10": 0.987},
    ]},
    "tokens": {"in": 4000, "cached": 3000, "out": 500}, "asked_teacher": 100, "label_seconds": 5.0,
    "prefix_cache_hit_rate": 0.75, "abstained": 11,
    "cost": {"currency": "EUR", "total": 1.5, "per_accepted_label": 0.0004, "basis": "8 GPU x 1 h x 2 EUR"},
    "flips": {"asked": 200, "flipped": 3, "rate": 0.015, "interval": [0.0051, 0.0431],
              "examples": [{"query": HOSTILE, "before": HOSTILE, "after": "accepted: {}"}]},
}  # fmt: skip

REVIEW = {
    "wanted": {"audit": 33}, "done": {"audit": 30}, "relabelled": 2,
    "agreement": {
        "product": {"labels": 12, "kappa": 0.81, "alpha": 0.8}, "label": {"labels": 12, "kappa": None, "alpha": None},
    },
    "reviewers": [
        {"reviewer": HOSTILE, "checked": 10, "right": 3, "low": 0.1, "high": 0.6, "doubtful": True},
        {"reviewer": "bo", "checked": 9, "right": 9, "low": 0.7, "high": 1.0, "doubtful": False},
    ],
}  # fmt: skip


def roles(product):
    return SemanticRoles(product=product, brand="", attributes=[])


def label(query, reason="grounded: brand 'acme' scores 0.31, needs 0.60"):
    return Label(
        "id", query, "rejected", HOSTILE, {}, reason, "", (), "t", "1", "m", "p", "n", 1, 1,
        guardrail="grounded", figure=0.31, threshold=0.6,
    )  # fmt: skip


def points(number):
    return [(place / number, place % 3 > 0) for place in range(number)]


def night(simulated=True):
    found = score([(roles("milk"), roles("milk"))] * 9 + [(roles("tea"), roles("milk"))])
    audit, said = reviewed(29, 1, simulated)
    found_by_people = judge(audit, said, SemanticRoles)
    verdicts = [replace(one, query=HOSTILE, value=HOSTILE, reviewer=HOSTILE) for one in said]
    figures = Figures(1000, 950, 40, 10, found_by_people, found, found, (0.9, 1.0), None, 0.01)
    summary = {
        "night": "2025-01-31", "profile": "laptop", "queries": 1000, "labelled": 950, "rejected": 40, "failed": 10,
        "asked_teacher": 0, "teacher": found.to_json(), "student": found.to_json(), "lookup": found.to_json(),
        "judgement": found_by_people.to_json(), "review": REVIEW,
        "head_entries": 100, "head_traffic_share": 0.71, "release": "r-1",
        "published": True, "seconds": {"ingest": 0.5, "label": 61.0, "train": 30.0},
        "gate": [check.to_json() for check in gate(figures, Thresholds(0.8, 0.8, 0.9, 0.02))],
        "student_size": {"parameters": 1_100_000}, "teacher_size": None,
    }  # fmt: skip
    data = ReportData(
        traffic=[1 / rank for rank in range(1, 1001)],
        head_cut=100,
        checked=Checked(points(101), "verdicts", simulated),
        losses=[(step, 2 / (step + 1)) for step in range(50)],
        rejected=[label(HOSTILE)] * 25,
        verdicts=verdicts,
    )
    return summary, data


class Page(HTMLParser):
    """The tags, ids and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.text += data


def written(folder, summary, data):
    write_report(summary, data, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return written(tmp_path_factory.mktemp("report"), *night())


def test_holds_the_six_plots_each_said_in_words(html):
    page = Page(html)
    assert [i for i in page.ids if i.startswith("plot-")] == [f"plot-{name}" for name in PLOTS]
    assert html.count("<svg ") == 6
    words = [attrs["aria-label"] for tag, attrs in page.tags if attrs.get("role") == "img"]
    assert len(words) == 6
    assert any("make up" in label for label in words)


def test_ids_are_unique_and_colours_come_from_the_page(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    for _, attrs in page.tags:
        target = attrs.get("xlink:href", "")
        assert not target or (target[0] == "#" and target[1:] in page.ids)
        assert "#0" not in attrs.get("style", ""), "a stand-in colour was left in"
    assert "prefers-color-scheme: dark" in html


def test_hostile_text_is_shown_and_never_becomes_markup(html):
    page = Page(html)
    assert not {"script", "img", "iframe", "link", "object"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "<script>console.error('run')</script>" in page.text
    assert "{{7*7}}" in page.text
    assert "\x00" not in html


def test_loads_nothing_from_outside(html):
    assert "default-src 'none'" in html
    assert not any(
        "src" in attrs or "href" in attrs or "http" in attrs.get("style", "") for _, attrs in Page(html).tags
    )
    assert "url(http" not in html
    assert "@import" not in html


def test_a_huge_query_is_cut(tmp_path):
    summary, data = night()
    html = written(tmp_path, summary, replace(data, rejected=[label("x" * 100_000)]))
    assert "x" * 200 + "…" in html
    assert "x" * 201 not in html


def test_twenty_examples_at_most_corrections_first(html):
    text = Page(html).text
    assert "20 of 40 rejected labels" in text
    assert "20 of 30 simulated verdicts" in text
    assert html.index(">corrected</td>") < html.index(">right</td>")


def test_simulated_verdicts_are_called_so_in_every_place(html):
    text = Page(html).text
    for place in (
        "30 simulated verdicts, at least",
        "These verdicts are simulated",
        "verdicts (simulated): mean confidence",
    ):
        assert place in text
    assert html.count('<span class="flag">simulated</span>') == 21  # the heading and each row


def test_real_verdicts_are_not(tmp_path):
    assert "simulated" not in written(tmp_path, *night(simulated=False))


def test_figures_reasons_and_sizes_are_there(html):
    text = " ".join(Page(html).text.split())
    for words in (
        "1,000 queries in = 950 labelled + 40 rejected + 10 failed",
        "✓ adds up",
        "asked nothing",
        "Published as release r-1",
        "labels are right",
        "1,100,000",
        "71.0%",
    ):
        assert words in text


def test_refused_night_says_why_and_that_the_last_release_stays(tmp_path):
    summary, _ = night()
    checks = gate(Figures(1000, 950, 40, 10, None, None, None, None, None, None), Thresholds(0.8, 0.8, 0.9, 0.02))
    summary |= {
        "teacher": None, "student": None, "lookup": None, "judgement": None, "published": False, "release": "r-0",
        "gate": [check.to_json() for check in checks],
    }  # fmt: skip
    text = " ".join(Page(written(tmp_path, summary, NOTHING)).text.split())
    assert "Not published: the gate refused (teacher, student, invalid). Release r-0 stays in use." in text
    assert "--gold FILE" in text
    assert "Nobody has judged" in text
    assert text.count("Not drawn") == 5


def test_rows_that_do_not_add_up_are_shown_so(tmp_path):
    summary, data = night()
    assert "✗ does not add up" in written(tmp_path, summary | {"failed": 9}, data)


def test_a_night_that_got_nowhere_still_has_its_page(tmp_path):
    text = Page(written(tmp_path, {"night": "2025-01-31"}, NOTHING)).text
    assert "The night ended before its queries were counted" in text
    assert "The gate was not reached" in text
    assert text.count("Not drawn") == 6


def test_one_query_one_step_one_point_can_be_drawn(tmp_path):
    data = replace(
        NOTHING, traffic=[3.0], head_cut=1, checked=Checked([(1.0, True)], "gold", simulated=False), losses=[(1, 0.0)]
    )
    assert written(tmp_path, {"seconds": {"ingest": 0.0}}, data).count("<svg ") == 4


def said(html):
    """The page's words, a space between any two."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split()).replace("&#39;", "'")


def test_the_log_adds_up_in_words(tmp_path):
    words = said(written(tmp_path, night()[0] | LABELLING, night()[1]))
    assert "2,000 rows = 1,900 kept + 100 dropped ✓ adds up" in words
    assert "1,000 distinct queries: 100 head, 300 torso, 600 tail; in 7 of the rows kept, personal data was" in words
    for reason, rows in (("empty", 3), ("longer than 200 characters", 1), ("too few different sessions", 96)):
        assert reason in words.partition("Dropped because it was")[2].partition(f" {rows} ")[0]
    assert "odd reason" in words


def test_a_log_with_more_dropped_than_there_was_does_not_add_up(tmp_path):
    words = said(written(tmp_path, {"night": "x", "log": {"rows": 5, "dropped_long": 6}}, NOTHING))
    assert "5 rows ≠ -1 kept + 6 dropped ✗ does not add up" in words


def test_retrieval_and_the_teachers_work_are_told_and_escaped(tmp_path):
    html = written(tmp_path, night()[0] | LABELLING, night()[1])
    assert "<script" not in html
    words = said(html)
    for told in (
        "1,580 facts of the catalogue and 42 examples",
        "hnsw updated 1,580 12 4 98.7%",
        "5.0 s, 20 queries a second",
        "4,000, 3,000 of them (75.0%) found in the prefix cache",
        "75.0%, by the engine's own count",
        "1.50 EUR, 0.0004 EUR an accepted label (8 GPU x 1 h x 2 EUR)",
        "11 accepted labels find nothing",
        "Flip rate 1.5%, 95% interval 0.5 to 4.3%: of 200 labels asked for again, with the same inputs, 3 came out",
    ):
        assert told in words


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("log", "The log's rows were not counted"),
        ("retrieval", "Nothing was retrieved"),
        ("tokens", "What the labels took was not counted"),
        ("asked_teacher", "What the labels took was not counted"),
        ("label_seconds", ""),
        ("abstained", ""),
        ("cost", "not reckoned: the profile gives no price"),
        ("prefix_cache_hit_rate", "not told by the engine"),
        ("flips", "No label was asked for again"),
    ],
)
def test_what_the_labelling_does_not_tell_the_page_does_not_invent(tmp_path, missing, told):
    whole = said(written(tmp_path, {"night": "x"} | LABELLING, NOTHING))
    assert not told or told not in whole
    assert told in said(written(tmp_path, {"night": "x"} | LABELLING | {missing: None}, NOTHING))


def test_a_night_that_asked_nothing_shows_no_rate_and_no_share(tmp_path):
    idle = {"asked_teacher": 0, "tokens": {"in": 0, "cached": 0, "out": 0}, "label_seconds": 0.0, "cost": None}
    words = said(written(tmp_path, {"night": "x"} | idle, NOTHING))
    assert "Queries asked 0 Tokens in 0 Tokens out 0 Prefix" in words


def test_rejected_labels_show_guardrail_figure_and_threshold(html, tmp_path):
    words = said(html)
    assert "20 of 40 rejected labels: grounded 25." in words
    assert "grounded 0.31 0.6 grounded: brand 'acme'" in words
    earlier = replace(label("tea"), guardrail="", figure=None, threshold=None)  # of a version that kept none
    assert "– – – grounded: brand" in said(written(tmp_path, {"rejected": 1}, replace(NOTHING, rejected=[earlier])))


def test_few_checked_labels_are_not_calibrated_and_the_page_says_how_many_more_it_takes(html):
    assert "Not calibrated: that takes 200 checked labels, 99 more than there are." in said(html)


def test_a_calibration_is_drawn_beside_the_raw_confidence_with_both_errors(tmp_path):
    checked = Checked(points(400), "gold", simulated=False)
    found = fit_calibration(checked)
    drawn = reliability(checked, found.to_json())
    before, after = f"(ECE) {found.ece_raw:.3f}", f"{found.ece_calibrated:.3f} once calibrated"
    assert before in drawn.words
    assert after in drawn.words
    assert ">calibrated</text>" in drawn.svg
    assert ">calibrated</text>" not in reliability(checked, None).svg
    words = said(written(tmp_path, {"calibration": found.to_json()}, replace(NOTHING, checked=checked)))
    assert after in words


def test_long_logs_are_drawn_by_few_points():
    drawn = coverage([1.0] * 300_000, 1000)
    assert len(drawn.svg) < 60_000
    assert "0.3% of traffic" in drawn.words


def test_a_missing_author_is_named():
    found = score([(roles("milk"), roles("milk"))]).to_json()
    assert "not measured: student, lookup" in quality({"teacher": found, "student": None, "lookup": None}).words


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (11520, "3 h 12 min")],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


def open_in_browser(page: Path, profile: Path) -> tuple[str, str]:
    """The page's DOM and what the browser logged."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium here: apt-get install chromium")
    off = ["background-networking", "component-update", "sync", "gpu", "quic"]
    flags = ["--headless", "--no-sandbox", "--no-first-run", "--enable-logging=stderr", "--dump-dom"]
    flags += [f"--disable-{name}" for name in off]
    command = [browser, *flags, f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def test_opens_in_a_real_browser_without_console_errors(tmp_path):
    written(tmp_path, night()[0] | LABELLING, night()[1])
    dom, log = open_in_browser(tmp_path / "report.html", tmp_path / "profile")
    assert "CONSOLE" not in log
    assert dom.count("<svg ") == 6
    assert "<img" not in dom

    (tmp_path / "bad.html").write_text("<script>console.error('seen')</script>")
    _, log = open_in_browser(tmp_path / "bad.html", tmp_path / "profile")
    assert "CONSOLE" in log, "the check above would miss an error"


def test_says_how_reviewers_agree_who_is_doubtful_and_what_was_made_anew(html):
    text = " ".join(Page(html).text.split())
    assert "2 verdicts are on labels that were made anew since" in text
    assert "0.81" in text
    assert text.count("doubtful") == 1


def test_the_judgement_is_drawn_with_the_gates_threshold(html):
    assert "The gate wants the lower end at 80.0%." in html
    assert judgement(None).svg == ""
