from dataclasses import replace

import pytest

from evals.gate import LEAST, Compared, Figures, Thresholds, Variant, candidates, gate, passed
from evals.general import Ability, regression
from evals.judge import judge
from evals.latency import Latency
from evals.metrics import difference_interval, ratio_interval, score
from evals.sample import Audit, Stratum
from labels.semantic_roles import SemanticRoles
from tests.evals.judged import judged, reviewed

THRESHOLDS = Thresholds(
    teacher_precision=0.8, teacher_f1=0.8, student_ratio=0.9, max_invalid=0.02, delta=0.01, latency_ms=300,
    latency_concurrency=8, general_loss=0.01, recall_drop=0.005,
)  # fmt: skip
MILK, TEA = (SemanticRoles(product=word, brand="", attributes=[]) for word in ("milk", "tea"))


def answered(right, wrong=0, none=0):
    return [(MILK, MILK)] * right + [(TEA, MILK)] * wrong + [(None, MILK)] * none


def scored(right, wrong=0, none=0):
    return score(answered(right, wrong, none))


def compared(ours, theirs):
    """The student's right answers beside those of the one being served, of as many queries."""
    a, b = (answered(right, 1000 - right) for right in (ours, theirs))
    return Compared("old", "", "gold", 1000, score(b), score(a).f1 - score(b).f1, difference_interval(a, b))


def forgot(before, after, texts=1.0, rows=200):
    """So many of 200 questions right before and after, and a text that became so many times as unlikely a token."""
    ones = [Ability([True] * right + [False] * (rows - right), [-100.0 * n], [1000])
            for right, n in ((before, 1), (after, texts))]  # fmt: skip
    return regression(*ones)


GOOD = Figures(
    queries=110, labelled=100, rejected=7, failed=3,
    judgement=judged(95, 5), teacher=scored(95, 5), student=scored(90, 10), ratio=(0.93, 0.97), agreement=None,
    invalid_rate=0.0, answers=100, compared=compared(903, 900), latency=Latency(8, 200, 100.0, 250.0, 80.0, 1600.0),
    general=forgot(160, 160),
)  # fmt: skip
NOTHING = replace(
    GOOD, judgement=None, teacher=None, student=None, ratio=None, agreement=None, invalid_rate=None, answers=0, compared=None,
    latency=None, general=None,
)  # fmt: skip


def one(figures, name):
    (check,) = [check for check in gate(figures, THRESHOLDS) if check.name == name]
    return check


def test_good_night_passes():
    checks = gate(GOOD, THRESHOLDS)
    assert passed(checks)
    assert [check.name for check in checks] == ["rows", "teacher", "student", "invalid", "served", "latency", "general"]
    assert all(check.message for check in checks)


def test_no_check_lets_nothing_through():
    assert not passed([])


@pytest.mark.parametrize("labelled", [99, 101])
def test_lost_or_doubled_rows_are_refused(labelled):
    check = one(replace(GOOD, labelled=labelled), "rows")
    assert not check.passed
    assert "110 queries came in" in check.message
    assert "report this as a bug" in check.message


def test_nothing_labelled_is_refused():
    assert not one(replace(GOOD, labelled=0, rejected=107), "rows").passed


def test_teacher_is_held_to_the_lower_bound_of_verdicts():
    few = one(replace(GOOD, judgement=judged(9)), "teacher")
    assert not few.passed, "nine right of nine is too little to be sure of 80%"
    assert few.figure == pytest.approx(0.70, abs=0.01)
    assert "7 more verdicts at this rate would do (a larger review.sample)" in few.message
    assert "80.0%" in few.message
    assert one(replace(GOOD, judgement=judged(90)), "teacher").passed


def test_bad_verdicts_outrank_good_gold():
    check = one(replace(GOOD, judgement=judged(50, 50), teacher=scored(100)), "teacher")
    assert not check.passed


def test_simulated_verdicts_are_called_so():
    assert "simulated verdicts" in one(replace(GOOD, judgement=judged(95, 5, simulated=True)), "teacher").message
    assert "simulated" not in one(GOOD, "teacher").message


def test_without_verdicts_gold_decides_by_its_lower_bound():
    assert one(replace(GOOD, judgement=None), "teacher").passed
    check = one(replace(GOOD, judgement=None, teacher=scored(82, 18)), "teacher")
    assert not check.passed
    assert check.figure < 0.8 < 0.82
    assert check.message.startswith("no verdicts; the teacher's F1 is 82.0%")


def test_without_verdicts_and_gold_it_says_how_to_give_either():
    check = one(replace(GOOD, judgement=None, teacher=None), "teacher")
    assert (check.passed, check.figure) == (False, None)
    assert "--gold FILE" in check.message
    assert "Review the sample" in check.message


def test_student_is_held_to_the_lower_end_of_its_share_of_the_teacher():
    assert "95% interval 93.0% to 97.0%" in one(GOOD, "student").message
    check = one(replace(GOOD, ratio=(0.89, 0.97)), "student")
    assert not check.passed
    assert check.figure == 0.89
    assert "train longer" in check.message


@pytest.mark.parametrize("queries", [20, LEAST - 1, LEAST])
def test_a_student_perfect_on_few_queries_is_not_let_through(queries):
    pairs = answered(queries)
    figures = replace(GOOD, teacher=score(pairs), student=score(pairs), ratio=ratio_interval(pairs, pairs))
    check = one(figures, "student")
    assert check.passed is (queries >= LEAST)
    assert ("too few to tell" in check.message) is (queries < LEAST)
    (asks_nothing,) = [one for one in gate(figures, replace(THRESHOLDS, student_ratio=0)) if one.name == "student"]
    assert asks_nothing.passed


def test_without_gold_agreement_with_the_teacher_decides():
    assert one(replace(NOTHING, agreement=scored(97, 3)), "student").passed
    assert "no gold" in one(replace(NOTHING, agreement=scored(97, 3)), "student").message
    assert not one(replace(NOTHING, agreement=scored(92, 8)), "student").passed, "92% of a hundred may be 86%"
    assert not one(NOTHING, "student").passed
    assert not one(NOTHING, "invalid").passed


def test_what_was_not_measured_lets_nothing_through_unless_nobody_asked():
    told = {check.name: check for check in gate(NOTHING, THRESHOLDS)}
    assert not told["served"].passed
    assert not told["latency"].passed
    assert "at most 300 ms" in told["latency"].message
    assert (told["general"].passed, told["general"].figure) == (True, None)
    assert "not asked for" in told["general"].message
    (latency,) = [one for one in gate(NOTHING, replace(THRESHOLDS, latency_ms=None)) if one.name == "latency"]
    assert latency.passed


def test_the_student_may_not_be_worse_than_the_one_being_served():
    assert one(GOOD, "served").passed
    worse = one(replace(GOOD, compared=compared(870, 900)), "served")
    assert not worse.passed
    assert (worse.figure, worse.threshold) == (pytest.approx(-0.03), -0.01)
    assert "-3.0 points" in worse.message


def test_a_student_that_may_be_worse_is_not_let_through_and_the_message_says_what_would_do():
    a = [(MILK if place % 10 else TEA, MILK) for place in range(200)]
    b = [(MILK if place % 10 != 5 else TEA, MILK) for place in range(200)]
    found = Compared("old", "", "gold", 200, score(b), 0.0, difference_interval(a, b))
    assert found.interval[0] < -0.01
    check = one(replace(GOOD, compared=found), "served")
    assert not check.passed
    assert "it may be as good; more gold would tell" in check.message


def test_few_queries_do_not_tell_two_students_apart_unless_nothing_is_asked():
    few = replace(GOOD, compared=Compared("old", "", "gold", 20, scored(10, 10), 0.5, (0.3, 0.7)))
    assert not one(few, "served").passed
    assert "too few" in one(few, "served").message
    (check,) = [one for one in gate(few, replace(THRESHOLDS, delta=1)) if one.name == "served"]
    assert check.passed


def test_with_nothing_to_compare_with_the_reason_is_told():
    check = one(replace(GOOD, compared=Compared(None, "nothing is released yet")), "served")
    assert check.passed
    assert check.message.endswith("nothing is released yet")


def test_latency_is_held_to_its_budget():
    slow = one(replace(GOOD, latency=Latency(8, 200, 100.0, 301.0, 80.0, 1600.0)), "latency")
    assert not slow.passed
    assert "the p99 of 200 requests with 8 callers at once took 301 ms; 300 ms allowed" in slow.message
    assert "slowest answer of 60" in one(replace(GOOD, latency=Latency(8, 60, 1.0, 2.0, 1.0, 1.0)), "latency").message


def test_general_ability_may_not_be_forgotten():
    lost = one(replace(GOOD, general=forgot(160, 150)), "general")
    assert not lost.passed
    assert lost.figure == pytest.approx(1 / 16)
    assert "80.0% of 200 general questions right before training, 75.0% after" in lost.message
    assert not one(replace(GOOD, general=forgot(160, 160, texts=1.2)), "general").passed, "the greater loss counts"
    assert one(replace(GOOD, general=forgot(160, 170)), "general").passed


def test_general_ability_by_twenty_questions_is_not_told():
    check = one(replace(GOOD, general=forgot(16, 16, rows=20)), "general")
    assert not check.passed
    assert "too little to tell" in check.message
    assert not one(replace(GOOD, general=forgot(0, 0)), "general").passed, "a base that knew nothing can lose nothing"


def variant(name, right):
    whole, pairs = answered(950, 50), answered(right, 1000 - right)
    found = score(pairs)
    return Variant(name, found, found.recall - 0.95, difference_interval(pairs, whole, figure="recall"))


def test_a_quantised_variant_is_shipped_only_where_recall_surely_holds():
    checks = candidates([variant("better", 960), variant("worse", 930)], 0.005)
    assert [(check.name, check.passed) for check in checks] == [("better", True), ("worse", False)]
    assert "-2.0 points" in checks[1].message
    (few,) = candidates([replace(variant("few", 960), score=scored(20), interval=(0.0, 0.0))], 0.005)
    assert not few.passed
    assert candidates([variant("worse", 930)], 1)[0].passed
    assert candidates([], 0.005) == []


def test_a_teacher_that_finds_nothing_lets_no_student_through():
    assert not one(replace(GOOD, teacher=scored(0, 100), student=scored(0, 100), ratio=None), "student").passed


def test_invalid_answers_are_refused():
    assert one(replace(GOOD, invalid_rate=0.02), "invalid").passed
    check = one(replace(GOOD, invalid_rate=0.03), "invalid")
    assert not check.passed
    assert "3.0%" in check.message
    assert "2.0% allowed" in check.message
    assert not one(replace(GOOD, answers=20), "invalid").passed, "none of 20 is no proof"


def test_a_band_that_nobody_judged_is_refused_however_good_the_others_are():
    audit, said = reviewed(100)
    head = Stratum("head", "head", 50, 500.0)
    more = [
        replace(one, stratum="head", band="head", label=replace(one.label, identity=f"head {n}"))
        for n, one in enumerate(audit.sampled[:10])
    ]
    judgement = judge(Audit([*audit.sampled, *more], [head, *audit.strata]), said, SemanticRoles)
    assert judgement.low > 0.9
    check = one(replace(GOOD, judgement=judgement), "teacher")
    assert not check.passed
    assert check.message == "nobody has judged labels of the head yet: review more of the sample"
