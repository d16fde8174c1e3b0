import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evals.gate import Figures, Thresholds, gate
from evals.judge import judge
from evals.metrics import score
from evals.plots import coverage, duration, quality
from evals.report import ReportData, write_report
from labels.records import Label, Verdict
from labels.semantic_roles import SemanticRoles

HOSTILE = "<script>console.error('run')</script><img src=x onerror=console.error('run')>\"'{{7*7}}\x00\u202e\ud800"
PLOTS = ["quality", "coverage", "confidence", "times", "losses"]
NOTHING = ReportData((), 0, (), "gold", (), (), ())


def roles(product):
    return SemanticRoles(product=product, brand="", attributes=[])


def label(query, reason="grounded: brand 'acme' scores 0.31, needs 0.60"):
    return Label("id", query, "rejected", HOSTILE, {}, reason, "", (), "t", "1", "m", "p", "n", 1, 1, "now")


def verdict(number, simulated=True, decision="right"):
    return Verdict(f"id{number}", HOSTILE, "reviewer", decision, HOSTILE, simulated, "tail", 0.1, "now")


def night(simulated=True):
    found = score([(roles("milk"), roles("milk"))] * 9 + [(roles("tea"), roles("milk"))])
    verdicts = [verdict(number, simulated, "right" if number else "corrected") for number in range(30)]
    judgement = judge(verdicts)
    figures = Figures(1000, 950, 40, 10, judgement, found, found, (0.9, 1.0), None, 0.01)
    summary = {
        "night": "2025-01-31", "profile": "laptop", "queries": 1000, "labelled": 950, "rejected": 40, "failed": 10,
        "asked_teacher": 0, "teacher": found.to_json(), "student": found.to_json(), "lookup": found.to_json(),
        "judgement": judgement.to_json(), "head_entries": 100, "head_traffic_share": 0.71, "release": "r-1",
        "published": True, "seconds": {"ingest": 0.5, "label": 61.0, "train": 30.0},
        "gate": [check.to_json() for check in gate(figures, Thresholds(0.8, 0.8, 0.9, 0.02))],
        "student_size": {"parameters": 1_100_000}, "teacher_size": None,
    }  # fmt: skip
    data = ReportData(
        traffic=[1 / rank for rank in range(1, 1001)],
        head_cut=100,
        confidence=[(place / 100, place % 3 > 0) for place in range(101)],
        confidence_source="verdicts",
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


def test_holds_the_five_plots_each_said_in_words(html):
    page = Page(html)
    assert [i for i in page.ids if i.startswith("plot-")] == [f"plot-{name}" for name in PLOTS]
    assert html.count("<svg ") == 5
    words = [attrs["aria-label"] for tag, attrs in page.tags if attrs.get("role") == "img"]
    assert len(words) == 5
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
    assert text.count("Not drawn") == 4


def test_rows_that_do_not_add_up_are_shown_so(tmp_path):
    summary, data = night()
    assert "✗ does not add up" in written(tmp_path, summary | {"failed": 9}, data)


def test_a_night_that_got_nowhere_still_has_its_page(tmp_path):
    text = Page(written(tmp_path, {"night": "2025-01-31"}, NOTHING)).text
    assert "The night ended before its queries were counted" in text
    assert "The gate was not reached" in text
    assert text.count("Not drawn") == 5


def test_one_query_one_step_one_point_can_be_drawn(tmp_path):
    data = replace(NOTHING, traffic=[3.0], head_cut=1, confidence=[(1.0, True)], losses=[(1, 0.0)])
    assert written(tmp_path, {"seconds": {"ingest": 0.0}}, data).count("<svg ") == 4


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


def test_opens_in_a_real_browser_without_console_errors(html, tmp_path):
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    dom, log = open_in_browser(tmp_path / "report.html", tmp_path / "profile")
    assert "CONSOLE" not in log
    assert dom.count("<svg ") == 5
    assert "<img" not in dom

    (tmp_path / "bad.html").write_text("<script>console.error('seen')</script>")
    _, log = open_in_browser(tmp_path / "bad.html", tmp_path / "profile")
    assert "CONSOLE" in log, "the check above would miss an error"
