"""Stage: whether the night's evidence lets its release through."""

from rich.markup import escape

from evals.gate import Check, Figures, Thresholds, gate
from evals.judge import Judgement
from flows.evaluate import Measured
from flows.label import Counts
from flows.night import Night


def pass_gate(night: Night, counts: Counts, judgement: Judgement | None, measured: Measured) -> list[Check]:
    """The gate's checks, each with its reason."""
    thresholds = Thresholds(**night.settings.gate.model_dump())
    at = {one.at_once: one for one in measured.latency}
    figures = Figures(
        queries=counts.queries,
        labelled=counts.labelled,
        rejected=counts.rejected,
        failed=counts.failed,
        judgement=judgement,
        teacher=measured.teacher_tail,
        student=measured.student,
        ratio=measured.ratio,
        agreement=measured.agreement,
        invalid_rate=measured.invalid_rate,
        answers=measured.answers,
        compared=measured.compared,
        latency=at.get(thresholds.latency_concurrency),
        general=measured.general,
    )
    checks = gate(figures, thresholds)
    for check in checks:
        mark = "[green]pass[/]" if check.passed else "[red]FAIL[/]"
        night.screen.say(f"  {mark} {escape(check.message)}")
    return checks
