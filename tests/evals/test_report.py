import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evals.calibration import Checked, fit_calibration
from evals.gate import Compared, Figures, Thresholds, gate
from evals.judge import judge
from evals.latency import Latency
from evals.metrics import score
from evals.plots import coverage, duration, judgement, quality, reliability
from evals.report import ReportData, write_report
from evals.slices import slices
from evals.student_plots import STEPS, comparisons, kept, margins, training
from labels.records import Label
from labels.semantic_roles import SemanticRoles
from tests.evals.judged import reviewed

HOSTILE = "<script>console.error('run')</script><img src=x onerror=console.error('run')>\"'{{7*7}}\x00\u202e\ud800"
PLOTS = [
    "margins",
    "quality",
    "judgement",
    "coverage",
    "confidence",
    "times",
    "slices",
    "kept",
    *STEPS,
    "comparisons",
]
THRESHOLDS = Thresholds(0.8, 0.8, 0.9, 0.02, 0.01, 300, 8, 0.01, 0.005)
NOTHING = ReportData((), 0, Checked((), "gold", simulated=False), {}, (), ())
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

CURVE = [
    {"step": 5 * step, "loss": 2 / step, "learning_rate": 0.004 / step, "tokens_per_second": 2300.0}
    for step in range(1, 50)
]
DATASET = {
    "rows": 5539, "verified": 155, "left_out": {"rejected": 40, "near_gold": 12, "odd_reason": 3, "failed": 0},
    "kept": {
        "by_difficulty": [
            {"low": 0.0, "high": 0.1, "whole": 500, "kept": 480}, {"low": 0.1, "high": 1.0, "whole": 500, "kept": 200},
        ],
        "by_band": [{"band": "head", "whole": 100, "kept": 90}, {"band": "tail", "whole": 900, "kept": 590}],
        "warnings": [f"the hard part is missing {HOSTILE}"],
    },
}  # fmt: skip
GENERAL = {
    "questions": 200, "tokens": 12034, "accuracy_before": 0.41, "accuracy_after": 0.4, "accuracy_loss": 0.0244,
    "accuracy_loss_interval": (-0.01, 0.05), "perplexity_before": 12.4, "perplexity_after": 12.5, "perplexity_rise": 0.0081,
    "perplexity_rise_interval": (0.004, 0.012),
}  # fmt: skip
ROUND = {
    "number": 1,
    "student": "student-1",
    "rows": 5123,
    "extras": 0,
    "pairs": 13,
    "f1": 0.9,
    "f1_interval": [0.8, 1],
}
COMPARISONS = [
    {"name": "this night's", "rows": 5539, "f1": 0.886, "f1_interval": [0.871, 0.899], "student_ahead_by": None},
    {"name": HOSTILE, "rows": 6000, "f1": 0.872, "f1_interval": [0.86, 0.88], "student_ahead_by": [0.002, 0.025]},
]

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
    summary, data = _night(simulated)
    return dict(summary), data


@cache
def _night(simulated):
    found = score([(roles("milk"), roles("milk"))] * 9 + [(roles("tea"), roles("milk"))])
    audit, said = reviewed(29, 1, simulated)
    found_by_people = judge(audit, said, SemanticRoles)
    verdicts = [replace(one, query=HOSTILE, value=HOSTILE, reviewer=HOSTILE) for one in said]
    milk = [(roles("milk"), roles("milk"))] * 5
    served = Compared(HOSTILE, "", "gold", 100, found, 0.02, (0.005, 0.03))
    latency = Latency(8, 200, 61.5, 250.0, 80.0, 1600.0)
    figures = Figures(
        1000, 950, 40, 10, found_by_people, found, found, (0.9, 1.0), None, 0.01, 100, served, latency, None
    )  # fmt: skip
    summary = {
        "night": "2025-01-31", "profile": "laptop", "queries": 1000, "labelled": 950, "rejected": 40, "failed": 10,
        "asked_teacher": 0, "teacher": found.to_json(), "student": found.to_json(), "lookup": found.to_json(),
        "agreement": found.to_json(), "judgement": found_by_people.to_json(), "review": REVIEW,
        "head_entries": 100, "head_traffic_share": 0.71, "release": "r-1",
        "published": True, "seconds": {"ingest": 0.5, "label": 61.0, "train": 30.0},
        "gate": [check.to_json() for check in gate(figures, THRESHOLDS)],
        "student_size": {"parameters": 1_100_000, "gib": 0.0021, "tokens_per_second": 1600.0}, "teacher_size": None,
        "served": served.to_json(), "latency": [latency.to_json()], "general": GENERAL, "dataset": DATASET,
        "slices": [one.to_json() for one in slices({"language": ["en"] * 3 + [HOSTILE] * 2}, milk, milk)],
        "parity": {"queries": 64, "max_logit_difference": 2e-5, "bound": 0.001}, "comparisons": COMPARISONS,
        "served_parity": {"max_difference": 8e-6, "same_answers": 1.0}, "rounds": [ROUND],
        "variants": [{"name": "fp8", "passed": False, "message": "fp8: recall 88.1%"}],
    }  # fmt: skip
    data = ReportData(
        traffic=[1 / rank for rank in range(1, 1001)],
        head_cut=100,
        checked=Checked(points(101), "verdicts", simulated),
        training=dict.fromkeys(STEPS, CURVE),
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


def test_holds_its_plots_each_said_in_words(html):
    page = Page(html)
    assert [i for i in page.ids if i.startswith("plot-")] == [f"plot-{name}" for name in PLOTS]
    assert html.count("<svg ") == len(PLOTS)
    words = [attrs["aria-label"] for tag, attrs in page.tags if attrs.get("role") == "img"]
    assert len(words) == len(PLOTS)
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
    html = written(tmp_path, {"night": "x"}, replace(NOTHING, rejected=[label("x" * 100_000)]))
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
        "its F1 is +2.0 points (95% interval +0.5 to +3.0), on 100 gold queries",
        "Held against the teacher's labels, right or wrong, its F1 is 90.0% (95% interval",
        "It learnt from 5,539 rows, 155 of them verified by people",
        "near a query that measures",
        "odd reason",
        "61.5 ms",
        "41.0%",
        "logits differ from its adapter's by 2e-05 at most (0.001 allowed), on 64 queries",
        "differ from the merged student's by 8e-06 at most, and 100.0% of its answers are the same",
        "5,123",
        "fp8: recall 88.1%",
    ):
        assert words in text


def test_refused_night_says_why_and_that_the_last_release_stays(tmp_path):
    summary, _ = night()
    checks = gate(Figures(1000, 950, 40, 10, *[None] * 6, 0, None, None, None), THRESHOLDS)
    summary |= {
        "teacher": None, "student": None, "lookup": None, "judgement": None, "published": False, "release": "r-0",
        "gate": [check.to_json() for check in checks],
    }  # fmt: skip
    text = " ".join(Page(written(tmp_path, summary, NOTHING)).text.split())
    assert (
        "Not published: the gate refused (teacher, student, invalid, served, latency). Release r-0 stays in use."
        in text
    )
    assert "--gold FILE" in text
    assert "Nobody has judged" in text
    assert text.count("Not drawn") == 6


def test_rows_that_do_not_add_up_are_shown_so(tmp_path):
    counts = {"queries": 1000, "labelled": 950, "rejected": 40, "failed": 9}
    assert "✗ does not add up" in written(tmp_path, {"night": "x"} | counts, NOTHING)


def test_a_night_that_got_nowhere_still_has_its_page(tmp_path):
    text = Page(written(tmp_path, {"night": "2025-01-31"}, NOTHING)).text
    assert "The night ended before its queries were counted" in text
    assert "The gate was not reached" in text
    assert text.count("Not drawn") == 9


def test_one_query_one_step_one_point_can_be_drawn(tmp_path):
    data = replace(
        NOTHING,
        traffic=[3.0],
        head_cut=1,
        checked=Checked([(1.0, True)], "gold", simulated=False),
        training={"training": [{"step": 1, "loss": 0.0}]},
    )
    assert written(tmp_path, {"seconds": {"ingest": 0.0}}, data).count("<svg ") == 4


def said(html):
    """The page's words, a space between any two."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split()).replace("&#39;", "'")


def test_the_log_adds_up_in_words(tmp_path):
    words = said(written(tmp_path, {"night": "x"} | LABELLING, NOTHING))
    assert "2,000 rows = 1,900 kept + 100 dropped ✓ adds up" in words
    assert "1,000 distinct queries: 100 head, 300 torso, 600 tail; in 7 of the rows kept, personal data was" in words
    for reason, rows in (("empty", 3), ("longer than 200 characters", 1), ("too few different sessions", 96)):
        assert reason in words.partition("Dropped because it was")[2].partition(f" {rows} ")[0]
    assert "odd reason" in words


def test_a_log_with_more_dropped_than_there_was_does_not_add_up(tmp_path):
    words = said(written(tmp_path, {"night": "x", "log": {"rows": 5, "dropped_long": 6}}, NOTHING))
    assert "5 rows ≠ -1 kept + 6 dropped ✗ does not add up" in words


def test_retrieval_and_the_teachers_work_are_told_and_escaped(tmp_path):
    html = written(tmp_path, {"night": "x"} | LABELLING, NOTHING)
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
    assert dom.count("<svg ") == len(PLOTS)
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


def test_a_forced_release_says_what_the_gate_refused(tmp_path):
    summary, data = night()
    summary["gate"][2]["passed"] = False
    assert "Published as release r-1, forced though the gate refused (student)." in said(
        written(tmp_path, summary, data)
    )


def test_each_checks_figure_is_drawn_in_its_unit_against_its_threshold(html):
    drawn = margins(night()[0]["gate"])
    assert "served +2.0 pts, latency 250 ms" in drawn.words
    for words in ("+2.0 pts  (≥ -1.0 pts)", "250 ms  (≤ 300 ms)", "1.0%  (≤ 2.0%)"):
        assert words in drawn.svg
    assert "rows" not in drawn.svg, "a count that adds up has no margin"
    assert margins([]).svg == ""


def test_the_kept_share_of_the_hardest_fifth_is_told():
    assert (
        "680 of the 1,000 labels that do not measure train the student (68%), of the hardest fifth 40%"
        in kept(DATASET).words
    )
    assert kept(None).svg == ""
    assert kept({"rows": 3}).svg == "", "datasets of before hold no comparison"


def test_a_curve_is_drawn_of_what_was_logged():
    assert training(CURVE).svg.count("tokens") == 1
    assert "tokens" not in training([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "seconds": 12.0}]).svg
    assert "Loss 2.000 at step 5, 0.041 at step 245; 2,300 tokens a second" in training(CURVE).words


def test_each_step_of_the_training_has_its_own_loss_and_a_pretrained_base_its_perplexities(tmp_path):
    pretraining = {"tokens": 51200, "replay_tokens": 5120, "shop_before": 10.0, "shop_after": 5.0}
    pretraining |= {"general_before": 20.0, "general_after": 21.0}
    summary, data = night()
    page = " ".join(written(tmp_path, {**summary, "pretraining": pretraining}, data).split())
    assert "preference and" in training(CURVE, "dpo").svg
    assert "label" not in training(CURVE, "distil").svg
    for told in (
        '<td class="number">-50.0%</td>',
        '<td class="number">5.0%</td>',
        "51,200 tokens",
        "DPO on corrections",
    ):
        assert told in page


def test_the_night_is_compared_with_students_on_other_rows():
    assert "(the first less this one: +0.2 to +2.5 points)" in comparisons(COMPARISONS).words
