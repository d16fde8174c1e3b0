from dataclasses import replace

import pytest

from evals.gate import Figures, Thresholds, gate, passed
from evals.judge import judge
from evals.metrics import score
from evals.sample import Audit, Stratum
from labels.semantic_roles import SemanticRoles
from tests.evals.judged import judged, reviewed

THRESHOLDS = Thresholds(teacher_precision=0.8, teacher_f1=0.8, student_ratio=0.9, max_invalid=0.02)


def scored(right, wrong=0, none=0):
    milk, tea = (SemanticRoles(product=word, brand="", attributes=[]) for word in ("milk", "tea"))
    return score([(milk, milk)] * right + [(tea, milk)] * wrong + [(None, milk)] * none)


GOOD = Figures(
    queries=110, labelled=100, rejected=7, failed=3,
    judgement=judged(95, 5), teacher=scored(95, 5), student=scored(90, 10), ratio=(0.93, 0.97), agreement=None, invalid_rate=0.0,
)  # fmt: skip


def one(figures, name):
    (check,) = [check for check in gate(figures, THRESHOLDS) if check.name == name]
    return check


def test_good_night_passes():
    checks = gate(GOOD, THRESHOLDS)
    assert passed(checks)
    assert [check.name for check in checks] == ["rows", "teacher", "student", "invalid"]
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


def test_student_is_held_to_its_share_of_the_teacher():
    assert "95% interval 93.0% to 97.0%" in one(GOOD, "student").message
    check = one(replace(GOOD, student=scored(80, 20)), "student")
    assert not check.passed
    assert check.figure == pytest.approx(80 / 95)
    assert "train longer" in check.message


def test_without_gold_agreement_with_the_teacher_decides():
    bare = replace(GOOD, teacher=None, student=None, ratio=None, invalid_rate=None)
    assert one(replace(bare, agreement=scored(95, 5)), "student").passed
    assert "no gold" in one(replace(bare, agreement=scored(95, 5)), "student").message
    assert not one(replace(bare, agreement=scored(80, 20)), "student").passed
    assert not one(bare, "student").passed
    assert not one(bare, "invalid").passed


def test_a_teacher_that_finds_nothing_lets_no_student_through():
    assert not one(replace(GOOD, teacher=scored(0, 10), student=scored(0, 10), ratio=None), "student").passed


def test_invalid_answers_are_refused():
    assert one(replace(GOOD, invalid_rate=0.02), "invalid").passed
    check = one(replace(GOOD, invalid_rate=0.03), "invalid")
    assert not check.passed
    assert "3.0%" in check.message
    assert "2.0% allowed" in check.message


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
