"""The gate: whether the night's evidence lets its release through. Pure: figures in, checks with reasons out.

Where a figure is a sample's, the unfavourable end of its 95% interval is held to the threshold, so that nothing passes by
the luck of few examples; of fewer than LEAST queries nothing is told at all. Of `invalid` and `general` the figure itself
is held to it: no sample of a night's size would put the upper end of either below a budget that small.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from evals.general import Regression
from evals.intervals import wilson
from evals.judge import Judgement, more_verdicts
from evals.latency import Latency
from evals.metrics import Interval, Score

LEAST = 50
"""A figure of fewer queries decides nothing."""
LEAST_QUESTIONS, LEAST_TOKENS = 100, 1000
"""General ability: one question of a hundred is the percent that may be lost; tokens of held-out text."""

Unit = Literal["share", "points", "count", "ms"]
"""What a figure is: a share of 1, a difference of shares, a number, milliseconds."""


@dataclass(frozen=True)
class Thresholds:
    """What a profile asks; shares of 0 to 1 where not said otherwise.

    `teacher_precision`: the least lower bound of the labels' precision by verdicts; `teacher_f1`: the least lower
    bound of the teacher's F1 on gold, asked where there are no verdicts; `student_ratio`: the student's F1 over the
    teacher's; `max_invalid`: the greatest share of queries the student may leave without a valid answer; `delta`: the F1 it
    may lose against the student being served; `latency_ms`: the greatest p99 with `latency_concurrency` callers, None for
    any; `general_loss`: the share of general ability it may lose; `recall_drop`: the recall that a quantised variant may
    lose. A `student_ratio` of 0, and 1 for any of the shares that may be lost, asks nothing.
    """

    teacher_precision: float
    teacher_f1: float
    student_ratio: float
    max_invalid: float
    delta: float
    latency_ms: float | None
    latency_concurrency: int
    general_loss: float
    recall_drop: float


@dataclass(frozen=True)
class Compared:
    """The night's student beside the one being served, on the same `queries`: the served one's score, and the difference
    F1(night's) - F1(served) with its interval. `by`: what both were scored against. Where there was nothing to compare,
    `why_not` says why and the figures are None; `forced`: it is the same student, and was forced past this comparison.
    """

    served: str | None
    why_not: str = ""
    by: Literal["gold", "labels"] = "gold"
    queries: int = 0
    score: Score | None = None
    difference: float | None = None
    interval: Interval | None = None
    forced: bool = False

    def to_json(self) -> dict[str, object]:
        """A dict `json.dumps` takes."""
        return asdict(self) | {"score": self.score.to_json() if self.score else None}


@dataclass(frozen=True)
class Figures:
    """The night's evidence; None for what was not measured.

    `teacher` and `student` are scored on the same gold; `ratio` is the interval of their F1s' ratio
    (`metrics.ratio_interval`); `agreement` scores the student against the teacher's held-out labels; `invalid_rate` is
    the share of its `answers` that were unparsable, broke the schema or were cut short (a guardrail's refusal is none);
    `latency` is that at the thresholds' number of callers; `general` is None where the settings name nothing to ask.
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
    answers: int
    compared: Compared | None
    latency: Latency | None
    general: Regression | None


@dataclass(frozen=True)
class Check:
    """One condition: its figure (None where it was not measured), its threshold (None where there is none), and the reason
    in words. `interval` is the figure's, `at_most` says that the figure may not be above the threshold, not below.
    """

    name: str
    passed: bool
    figure: float | None
    threshold: float | None
    message: str
    interval: Interval | None = None
    at_most: bool = False
    unit: Unit = "share"

    def to_json(self) -> dict[str, object]:
        """A dict `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True)
class Variant:
    """A quantised variant of the student, asked the same: its score, and recall(variant) - recall(student)."""

    name: str
    score: Score
    difference: float
    interval: Interval


def gate(figures: Figures, thresholds: Thresholds) -> list[Check]:
    """What a release must pass: rows add up, the teacher is good; the student is near it, valid, no worse than the one
    being served, fast enough, and has not forgotten what it could do before.
    """
    return [
        _rows(figures),
        _teacher(figures, thresholds),
        _student(figures, thresholds),
        _invalid(figures, thresholds),
        _served(figures.compared, thresholds),
        _latency(figures.latency, thresholds),
        _general(figures.general, thresholds),
    ]


def passed(checks: Sequence[Check]) -> bool:
    """Whether every check passed; no check at all lets nothing through."""
    return bool(checks) and all(check.passed for check in checks)


def candidates(variants: Sequence[Variant], recall_drop: float) -> list[Check]:
    """Which quantised variants may be shipped for the student: those whose recall drops by no more than `recall_drop`, by
    the lower end of the difference (Instacart measured this of FP8, and kept bf16). One check a variant, in their order.
    """
    checks = []
    for one in variants:
        low, high = one.interval
        queries = one.score.queries
        asked = recall_drop < 1
        ok = not asked or (low >= -recall_drop and queries >= LEAST)
        message = (
            f"{one.name}: recall {one.score.recall:.1%}, {_points(one.difference)} against the unquantised student's (95% "
            f"interval {_points(low)} to {_points(high)}) on {queries:,} queries; a drop of {100 * recall_drop:.1f} allowed"
        )
        if not ok:
            message += f": too few to tell, wanted {LEAST}" if queries < LEAST else ": it is not shipped"
        checks.append(Check(one.name, ok, one.difference, -recall_drop, message, one.interval, unit="points"))
    return checks


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
    return Check("rows", ok, out, figures.queries, message, unit="count")


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
        return _at_least("teacher", judged.low, thresholds.teacher_precision, what, advice, (judged.low, judged.high))
    if (gold := figures.teacher) is not None:
        what = f"no verdicts; the teacher's F1 is {gold.f1:.1%} on {gold.queries:,} gold queries, at least"
        advice = "review the sample, or better the teacher, its facts or its prompt"
        if thresholds.teacher_f1 and gold.queries < LEAST:
            message = (
                f"{what} {gold.f1_interval[0]:.1%}; that is too few to tell by: review the sample, or give more gold"
            )
            return Check("teacher", False, gold.f1_interval[0], thresholds.teacher_f1, message, gold.f1_interval)
        return _at_least("teacher", gold.f1_interval[0], thresholds.teacher_f1, what, advice, gold.f1_interval)
    message = (
        f"nothing says how good the labels are; wanted a precision of at least {thresholds.teacher_precision:.1%} by "
        f"verdicts or an F1 of at least {thresholds.teacher_f1:.1%} on gold. Review the sample, or give "
        "gold answers with --gold FILE"
    )
    return Check("teacher", False, None, thresholds.teacher_precision, message)


def _student(figures: Figures, thresholds: Thresholds) -> Check:
    """On gold the student's F1 over the teacher's; without gold, its agreement with the teacher. The lower end of each."""
    asked, advice = thresholds.student_ratio, "train longer or on more labels, or take a larger student"
    if figures.student is not None and figures.teacher is not None:
        student, teacher, queries = figures.student.f1, figures.teacher.f1, figures.student.queries
        ratio = student / teacher if teacher else 0.0
        low, high = figures.ratio or (0.0, 0.0)
        what = (
            f"the student's F1 {student:.1%} is {ratio:.1%} (95% interval {low:.1%} to {high:.1%}) of the teacher's "
            f"{teacher:.1%} on {queries:,} gold queries, at least"
        )
        if asked and queries < LEAST:
            message = f"{what} {low:.1%}; that is too few to tell by: give gold for {LEAST} queries of the log or more"
            return Check("student", False, low, asked, message, (low, high))
        return _at_least("student", low, asked, what, advice, (low, high))
    if (agreed := figures.agreement) is not None:
        what = f"no gold; the student's F1 against the teacher's labels of {agreed.queries:,} queries is at least"
        if asked and agreed.queries < LEAST:
            message = f"{what} {agreed.f1_interval[0]:.1%}; that is too few to tell by, wanted {LEAST} or more"
            return Check("student", False, agreed.f1_interval[0], asked, message, agreed.f1_interval)
        return _at_least("student", agreed.f1_interval[0], asked, what, advice, agreed.f1_interval)
    message = (
        f"the student was not measured; wanted at least {asked:.1%} of the teacher's F1. "
        "Give gold answers with --gold FILE, or enough labels to hold some out, and see whether training finished"
    )
    return Check("student", False, None, asked, message)


def _invalid(figures: Figures, thresholds: Thresholds) -> Check:
    most, rate, answers = thresholds.max_invalid, figures.invalid_rate, figures.answers
    wanted = f"{most:.1%} allowed"
    if rate is None:
        message = f"the student's invalid answers were not counted; {wanted}. Measure the student first"
        return Check("invalid", False, None, most, message, at_most=True)
    message = f"{rate:.1%} of the student's {answers:,} answers are unparsable or cut short; {wanted}"
    if rate > most:
        message += ": train longer or on more labels, and see that its answers are not cut short"
    elif most < 1 and answers < LEAST:
        message += f": {answers} are too few to tell by, wanted {LEAST} or more"
    ok = rate <= most and (most >= 1 or answers >= LEAST)
    return Check("invalid", ok, rate, most, message, wilson(rate * answers, answers), at_most=True)


def _served(found: Compared | None, thresholds: Thresholds) -> Check:
    """No worse than what is served now: the difference's lower end is above -delta (a non-inferiority test)."""
    delta = thresholds.delta
    allowed = f"a loss of {100 * delta:.1f} points allowed"
    if found is None:
        message = f"the student was not compared with the one being served; {allowed}. Measure it first"
        return Check("served", False, None, -delta, message, unit="points")
    if found.difference is None or found.interval is None:
        message = f"not compared with a student that is being served: {found.why_not}"
        message += ", forced past this check" if found.forced else ""
        return Check("served", not found.forced or delta >= 1, None, -delta, message, unit="points")
    (low, high), on = (
        found.interval,
        "gold queries" if found.by == "gold" else "of the teacher's labels, for want of gold",
    )
    message = (
        f"the student's F1 is {_points(found.difference)} against that of {found.served}, which is being served (95% "
        f"interval {_points(low)} to {_points(high)}), on {found.queries:,} {on}; {allowed}"
    )
    ok = delta >= 1 or (low > -delta and found.queries >= LEAST)
    if not ok and found.queries < LEAST:
        message += f": too few to tell by, wanted {LEAST} or more"
    elif not ok and found.difference > -delta:
        message += ": it may be as good; more gold would tell, or a larger gate.delta lets it through"
    elif not ok:
        message += ": train longer, or see what changed in the labels"
    return Check("served", ok, found.difference, -delta, message, found.interval, unit="points")


def _latency(found: Latency | None, thresholds: Thresholds) -> Check:
    most, callers = thresholds.latency_ms, thresholds.latency_concurrency
    at = f"with {callers:,} {'caller' if callers == 1 else 'callers'} at once"
    if found is None:
        message = f"the student's latency {at} was not measured"
        message += "; gate.latency_ms sets no budget" if most is None else f"; wanted a p99 of at most {most:,.0f} ms"
        return Check("latency", most is None, None, most, message, at_most=True, unit="ms")
    what = "p99" if found.requests >= 100 else "slowest answer"
    message = f"the {what} of {found.requests:,} requests {at} took {found.p99_ms:,.0f} ms; "
    message += "gate.latency_ms sets no budget" if most is None else f"{most:,.0f} ms allowed"
    ok = most is None or found.p99_ms <= most
    message += "" if ok else ": take a smaller student, a quantised one, or a faster machine"
    return Check("latency", ok, found.p99_ms, most, message, at_most=True, unit="ms")


def _general(found: Regression | None, thresholds: Thresholds) -> Check:
    most = thresholds.general_loss
    if found is None:
        message = "general ability was not asked for: evaluate.general names no file"
        return Check("general", True, None, most, message, at_most=True)
    parts, enough = [], True
    if found.accuracy_loss is not None:
        enough = found.questions >= LEAST_QUESTIONS and found.accuracy_before != 0  # of nothing, nothing can be lost
        parts.append(
            f"{found.accuracy_before:.1%} of {found.questions:,} general questions right before training, "
            f"{found.accuracy_after:.1%} after"
        )
    if found.perplexity_rise is not None:
        enough = enough and found.tokens >= LEAST_TOKENS
        parts.append(
            f"perplexity {found.perplexity_before:,.2f} before, {found.perplexity_after:,.2f} after on {found.tokens:,} "
            "tokens of general text"
        )
    message = f"{'; '.join(parts)}: a loss of {found.worst:.1%}, {most:.1%} allowed"
    ok = most >= 1 or (found.worst <= most and enough)
    if not ok:
        few = f": too little to tell by, wanted {LEAST_QUESTIONS} questions, some answered right before, or {LEAST_TOKENS:,} "
        few += "tokens, of each kind that the file holds"
        message += ": replay more general rows (student.data.replay), or train more gently" if enough else few
    return Check("general", ok, found.worst, most, message, found.worst_interval, at_most=True)


def _at_least(
    name: str, figure: float, threshold: float, what: str, advice: str, interval: Interval | None = None
) -> Check:
    ok = figure >= threshold
    message = f"{what} {figure:.1%}; wanted {threshold:.1%}" + ("" if ok else f": {advice}")
    return Check(name, ok, figure, threshold, message, interval)


def _points(share: float) -> str:
    """A difference of shares in points of 100, with its sign."""
    return f"{100 * share:+.1f} points"
