"""The gate: whether the night's evidence lets its release through. Pure: figures in, checks with reasons out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from evals.judge import Judgement, more_verdicts
from evals.metrics import Interval, Score


@dataclass(frozen=True)
class Thresholds:
    """What a profile asks, all 0 to 1.

    `teacher_precision`: the least lower bound of the labels' precision by verdicts; `teacher_f1`: the least lower
    bound of the teacher's F1 on gold, asked where there are no verdicts; `student_ratio`: the student's F1 over the
    teacher's; `max_invalid`: the greatest share of queries the student may leave without a valid answer.
    """

    teacher_precision: float
    teacher_f1: float
    student_ratio: float
    max_invalid: float


@dataclass(frozen=True)
class Figures:
    """The night's evidence; None for what was not measured.

    `teacher` and `student` are scored on the same gold; `ratio` is the interval of their F1s' ratio
    (`metrics.ratio_interval`); `agreement` scores the student against the teacher's held-out labels; `invalid_rate` is
    the share of its answers that were unparsable, broke the schema or were cut short (a guardrail's refusal is none).
    """

    queries: int
    labelled: int
    rejected: int
    failed: int
    judgement: Judgement | None
    teacher: Score | None
    student: Score | None
    ratio: Interval | None
    agreement: Score | None
    invalid_rate: float | None


@dataclass(frozen=True)
class Check:
    """One condition: its figure (None where it was not measured), its threshold, and the reason in words."""

    name: str
    passed: bool
    figure: float | None
    threshold: float
    message: str

    def to_json(self) -> dict[str, object]:
        """A dict `json.dumps` takes."""
        return asdict(self)


def gate(figures: Figures, thresholds: Thresholds) -> list[Check]:
    """The four checks a release must pass: rows add up, the teacher is good, the student is near it, and valid."""
    return [
        _rows(figures),
        _teacher(figures, thresholds),
        _student(figures, thresholds),
        _invalid(figures, thresholds),
    ]


def passed(checks: Sequence[Check]) -> bool:
    """Whether every check passed; no check at all lets nothing through."""
    return bool(checks) and all(check.passed for check in checks)


def _rows(figures: Figures) -> Check:
    """Invariant 1: rows in = labelled + rejected + failed."""
    out = figures.labelled + figures.rejected + figures.failed
    sums = f"{figures.labelled:,} labelled + {figures.rejected:,} rejected + {figures.failed:,} failed = {out:,}"
    ok = out == figures.queries and figures.labelled > 0
    if out != figures.queries:
        message = f"{sums}, but {figures.queries:,} queries came in: rows were lost or doubled; report this as a bug"
    elif not figures.labelled:
        message = f"{sums}: no query has a label to publish; see why in the report's rejected labels"
    else:
        message = f"{sums}, as many as came in"
    return Check("rows", ok, out, figures.queries, message)


def _teacher(figures: Figures, thresholds: Thresholds) -> Check:
    """Verdicts decide; where there are none, gold does."""
    if (judged := figures.judgement) is not None:
        says = "simulated verdicts" if judged.simulated else "verdicts"
        if judged.missing:
            message = f"nobody has judged labels of the {' or '.join(judged.missing)} yet: review more of the sample"
            return Check("teacher", False, judged.low, thresholds.teacher_precision, message)
        what = f"labels are right {judged.precision:.1%} of the time by {judged.verdicts:,} {says}, at least"
        more = more_verdicts(judged, thresholds.teacher_precision)
        if more:
            advice = f"{more:,} more verdicts at this rate would do "
            advice += "(stillhouse review)" if judged.unreviewed else "(a larger review.sample)"
        else:
            advice = "no number of verdicts would do: better the teacher, its facts or its prompt"
        return _at_least("teacher", judged.low, thresholds.teacher_precision, what, advice)
    if (gold := figures.teacher) is not None:
        what = f"no verdicts; the teacher's F1 is {gold.f1:.1%} on {gold.queries:,} gold queries, at least"
        advice = "review the sample, or better the teacher, its facts or its prompt"
        return _at_least("teacher", gold.f1_interval[0], thresholds.teacher_f1, what, advice)
    message = (
        f"nothing says how good the labels are; wanted a precision of at least {thresholds.teacher_precision:.1%} by "
        f"verdicts or an F1 of at least {thresholds.teacher_f1:.1%} on gold. Review the sample, or give "
        "gold answers with --gold FILE"
    )
    return Check("teacher", False, None, thresholds.teacher_precision, message)


def _student(figures: Figures, thresholds: Thresholds) -> Check:
    """On gold the student's F1 over the teacher's; without gold, its agreement with the teacher."""
    advice = "train longer or on more labels, or take a larger student"
    if figures.student is not None and figures.teacher is not None:
        student, teacher = figures.student.f1, figures.teacher.f1
        ratio = student / teacher if teacher else 0.0
        sure = f" (95% interval {figures.ratio[0]:.1%} to {figures.ratio[1]:.1%})" if figures.ratio else ""
        what = f"the student's F1 {student:.1%} over the teacher's {teacher:.1%} on gold{sure} is"
        return _at_least("student", ratio, thresholds.student_ratio, what, advice)
    if figures.agreement is not None:
        queries = figures.agreement.queries
        what = f"no gold; the student's F1 against the teacher's labels of {queries:,} held-out queries is"
        return _at_least("student", figures.agreement.f1, thresholds.student_ratio, what, advice)
    message = (
        f"the student was not measured; wanted at least {thresholds.student_ratio:.1%} of the teacher's F1. "
        "Give gold answers with --gold FILE, or enough labels to hold some out, and see whether training finished"
    )
    return Check("student", False, None, thresholds.student_ratio, message)


def _invalid(figures: Figures, thresholds: Thresholds) -> Check:
    wanted = f"{thresholds.max_invalid:.1%} allowed"
    rate = figures.invalid_rate
    if rate is None:
        message = f"the student's invalid answers were not counted; {wanted}. Measure the student first"
        return Check("invalid", False, None, thresholds.max_invalid, message)
    ok = rate <= thresholds.max_invalid
    message = f"{rate:.1%} of the student's answers are unparsable or cut short; {wanted}"
    message += "" if ok else ": train longer or on more labels, and see that its answers are not cut short"
    return Check("invalid", ok, rate, thresholds.max_invalid, message)


def _at_least(name: str, figure: float, threshold: float, what: str, advice: str) -> Check:
    ok = figure >= threshold
    message = f"{what} {figure:.1%}; wanted {threshold:.1%}" + ("" if ok else f": {advice}")
    return Check(name, ok, figure, threshold, message)
