"""Stages: the sample for people, what their verdicts say of the teacher, and what its confidence is worth."""

import json
from dataclasses import asdict
from pathlib import Path

from evals.calibration import LEAST, Calibration, Checked, fit_calibration
from evals.gold import read_gold
from evals.judge import Judgement, judge
from evals.sample import audit_sample, unasked
from flows.night import Night
from labels.files import write_json, write_text
from labels.records import Label, Verdict


def sample_labels(night: Night) -> int:
    """Draw the sample, write what is still to be reviewed, and in the demo have it answered from the gold.

    Returns how many labels are still to be reviewed by people.
    """
    queries = night.queries()
    bands = dict(zip(queries["query"].to_pylist(), queries["band"].to_pylist(), strict=True))
    sampled = audit_sample(night.labels, bands, night.settings.review.sample, night.settings.seed)
    waiting = unasked(sampled, night.warehouse.verdicts())
    if night.settings.review.simulated:
        from demo.reviewer import simulated_verdicts

        answers = read_gold(reviewer_gold(night), night.settings.gold.query, night.task)
        night.warehouse.add_verdicts(simulated_verdicts(night.task, waiting, answers))
        night.screen.say(f"  {len(sampled)} labels sampled; {len(waiting)} new verdicts, simulated from the gold")
        waiting = []
    else:
        night.screen.say(f"  {len(sampled)} labels sampled, {len(waiting)} of them for people to review")
    lines = [
        json.dumps(asdict(one.label) | {"stratum": one.stratum, "inclusion_probability": one.inclusion_probability})
        for one in waiting
    ]
    write_text(night.folder / "to_review.jsonl", "".join(line + "\n" for line in lines))
    return len(waiting)


def judge_teacher(night: Night) -> Judgement | None:
    """The teacher's precision by the verdicts on the night's labels, with its interval; None without verdicts."""
    judgement = judge(night_verdicts(night))
    if judgement:
        simulated = "simulated " if judgement.simulated else ""
        figures = f"{judgement.precision:.3f} [{judgement.low:.3f}, {judgement.high:.3f}]"
        night.screen.say(f"  teacher precision {figures} by {judgement.verdicts} {simulated}verdicts")
    else:
        night.screen.say("  no verdicts yet")
    return judgement


def calibrate(night: Night) -> Calibration | None:
    """Write the night's calibration.json; None, and no file, where too few labels were checked."""
    checked = checked_labels(night)
    calibration = fit_calibration(checked, night.settings.seed)
    if calibration is None:
        have = len(checked.points)
        night.screen.say(f"  confidence not calibrated: {have:,} checked labels, {LEAST - have:,} more are needed")
        return None
    write_json(night.folder / "calibration.json", calibration.to_json())
    simulated = "simulated " if calibration.simulated else ""
    night.screen.say(
        f"  confidence calibrated on {calibration.n:,} labels by {simulated}{calibration.source}: "
        f"expected error {calibration.ece_raw:.3f} before, {calibration.ece_calibrated:.3f} after"
    )
    return calibration


def checked_labels(night: Night) -> Checked:
    """The accepted labels that gold, or people, say are right or wrong: whichever knows more of them.

    Labels without a confidence (the engine gave no log-probabilities) are left out.
    """
    accepted = {one.identity: one for one in night.labels if one.status == "accepted" and one.confidence}
    by_gold = [
        (_least_sure(one), night.task.parse(one.value).items() == night.gold[one.query].items())
        for one in accepted.values()
        if one.value and one.query in night.gold
    ]
    decided = [one for one in night_verdicts(night) if one.identity in accepted and one.decision != "cant_tell"]
    if len(by_gold) >= len(decided):
        return Checked(by_gold, "gold", simulated=False)
    by_people = [(_least_sure(accepted[one.identity]), one.decision == "right") for one in decided]
    return Checked(by_people, "verdicts", simulated=any(one.simulated for one in decided))


def _least_sure(label: Label) -> float:
    """A label is right when every field is, so it is as sure as its least sure field."""
    return min(label.confidence.values())


def night_verdicts(night: Night) -> list[Verdict]:
    """The verdicts on the labels this night stands on."""
    held = {one.identity for one in night.labels}
    return [verdict for verdict in night.warehouse.verdicts() if verdict.identity in held]


def reviewer_gold(night: Night) -> Path:
    """The gold the simulated reviewer answers from: reviewer.parquet beside the held-out gold, else that itself."""
    held_out = Path(str(night.settings.gold.path))
    beside = held_out.with_name("reviewer.parquet")
    return beside if beside.exists() else held_out
