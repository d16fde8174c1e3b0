"""Stages: the audit for people, what their verdicts say of the teacher, what its confidence is worth, and what else
people should see.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from evals.calibration import LEAST, Calibration, Checked, fit_calibration
from evals.gold import read_gold
from evals.item import Item
from evals.judge import Judgement, judge
from evals.queue import ReviewQueue
from evals.sample import Audit, Sampled, Stratum, audit_sample, budget_size, sample_size
from flows.night import Night
from flows.people import answers_of, verdicts_of, verdicts_on
from flows.settings import ReviewSettings
from labels.errors import InputError
from labels.files import digest, read_json, write_json
from labels.records import Band, Label

AUDIT = "audit.json"


def sample_labels(night: Night) -> Audit:
    """Draw the audit, put it before people, and in the demo have it answered from the gold."""
    place = places(night)
    bands = {query: band for query, (band, _) in place.items()}
    traffic = {query: events for query, (_, events) in place.items()}
    review, queue = night.settings.review, queue_of(night)
    size = audit_size(review, queue.progress().seconds_each)
    day = night.began.toordinal()
    audit = audit_sample(night.labels, traffic, bands, size, night.settings.seed, day, review.window_days)
    write_json(night.folder / AUDIT, audit_json(audit))
    queue.fill(first_items(night, audit), night.id)
    judged = {said.identity for said in verdicts_on(night, (one.label for one in audit.sampled))}
    waiting = [one for one in audit.sampled if one.label.identity not in judged]
    if review.simulated:
        from demo.reviewer import simulated_verdicts

        answers = read_gold(reviewer_gold(night), night.settings.gold.query, night.task)
        night.warehouse.add_verdicts(simulated_verdicts(night.task, waiting, answers))
        night.screen.say(f"  {len(audit.sampled)} labels sampled; {len(waiting)} new verdicts, simulated from the gold")
    else:
        say = f"  {len(audit.sampled)} labels sampled, {len(waiting)} of them for people to review"
        night.screen.say(say + (": stillhouse review" if waiting else ""))
    return audit


def audit_size(review: ReviewSettings, seconds_each: float) -> int:
    """How many labels the settings ask people about, at a pace of so many seconds a verdict."""
    asked = [sample_size(review.width)] if review.width else []
    asked += [budget_size(review.minutes, seconds_each)] if review.minutes else []
    return min(asked, default=review.sample)


def first_items(night: Night, audit: Audit) -> list[Item]:
    """The audit and the hidden gold items as the queue takes them. What people answered of a label made before, and so
    know of this one, is not asked again.
    """
    said = {one.query: one.identity for one in answers_of(night) if not one.simulated}
    asked = [one for one in audit.sampled if said.get(one.label.query, one.label.identity) == one.label.identity]
    items = [
        Item(
            label=one.label,
            part="audit",
            band=one.band,
            traffic=one.traffic,
            stratum=one.stratum,
            inclusion_probability=one.inclusion_probability,
            overlap=overlaps(night, one.label),
        )
        for one in asked
    ]
    return shuffled(night, [*items, *gold_items(night, audit)])


def overlaps(night: Night, label: Label) -> bool:
    """Whether two reviewers are to see it, by a hash; never where there is one reviewer alone."""
    review = night.settings.review
    return len(review.reviewers) > 1 and _chance("overlap", night, label) < review.overlap


def gold_items(night: Night, audit: Audit) -> list[Item]:
    """Hidden gold items: labels whose right answer is known, to see how reviewers do. Never one of the audit, nor
    one that was judged before.
    """
    review = night.settings.review
    taken = {one.label.identity for one in audit.sampled} | {said.identity for said in verdicts_of(night)}
    known = [one for one in night.labels if one.status == "accepted" and one.query in night.gold]
    known = sorted((one for one in known if one.identity not in taken), key=lambda one: _chance("gold", night, one))
    chosen = known[: round(review.gold_share * (len(audit.sampled) + review.active))]
    place = places(night)
    return [Item(one, "gold", *place[one.query], answer=night.gold[one.query].to_json()) for one in chosen]


def places(night: Night) -> dict[str, tuple[Band, float]]:
    """The band and traffic (events) of each of the night's queries."""
    table = night.queries()
    names, bands, traffic = (table[name].to_pylist() for name in ("query", "band", "traffic"))
    return dict(zip(names, zip(bands, traffic, strict=True), strict=True))


def shuffled(night: Night, items: Iterable[Item]) -> list[Item]:
    """In an order of chance that stays, every stratum at its own even pace: so what was reviewed by any moment is a
    random part of each.
    """
    by_stratum = defaultdict[str, list[Item]](list)
    for one in sorted(items, key=lambda one: digest("order", night.settings.seed, one.label.query)):
        by_stratum[one.stratum].append(one)
    paced = [
        ((rank + 0.5) / len(part), stratum, rank) for stratum, part in by_stratum.items() for rank in range(len(part))
    ]
    return [by_stratum[stratum][rank] for _, stratum, rank in sorted(paced)]


def queue_of(night: Night) -> ReviewQueue:
    """The review queue of the work folder."""
    return ReviewQueue(night.warehouse.said)


def judgement_of(night: Night, audit: Audit) -> Judgement | None:
    """What the verdicts given so far say of the audit; None where none decides anything."""
    return judge(audit, verdicts_on(night, (one.label for one in audit.sampled)), night.task)


def judge_teacher(night: Night, audit: Audit) -> Judgement | None:
    """How right the teacher's labels are by the verdicts on the audit, with intervals; None without verdicts."""
    judgement = judgement_of(night, audit)
    if judgement:
        simulated = "simulated " if judgement.simulated else ""
        figures = f"{judgement.precision:.3f} [{judgement.low:.3f}, {judgement.high:.3f}]"
        left = f", {judgement.unreviewed} still to come" if judgement.unreviewed else ""
        night.screen.say(f"  teacher precision {figures} by {judgement.verdicts} {simulated}verdicts{left}")
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

    Labels without a confidence (the engine gave no log-probabilities) are left out, and so is what people saw because
    it looked wrong.
    """
    accepted = {one.identity: one for one in night.labels if one.status == "accepted" and one.confidence}
    by_gold = [
        (_least_sure(one), night.task.parse(one.value).items() == night.gold[one.query].items())
        for one in accepted.values()
        if one.value and one.query in night.gold
    ]
    decided = [
        said
        for said in verdicts_of(night)
        if said.identity in accepted and said.decision != "cant_tell" and said.part != "active"
    ]
    if len(by_gold) >= len(decided):
        return Checked(by_gold, "gold", simulated=False)
    by_people = [(_least_sure(accepted[one.identity]), one.decision == "right") for one in decided]
    return Checked(by_people, "verdicts", simulated=any(one.simulated for one in decided))


def reviewer_gold(night: Night) -> Path:
    """The gold the simulated reviewer answers from: reviewer.parquet beside the held-out gold, else that itself."""
    held_out = Path(str(night.settings.gold.path))
    beside = held_out.with_name("reviewer.parquet")
    return beside if beside.exists() else held_out


def audit_json(audit: Audit) -> dict[str, object]:
    """The audit as a file holds it: labels by their identity."""
    sampled = [
        {name: value for name, value in asdict(one).items() if name != "label"} | {"identity": one.label.identity}
        for one in audit.sampled
    ]
    return asdict(audit) | {"sampled": sampled}


def held_audit(night: Night) -> Audit:
    """The audit that a night drew. Raises InputError where it drew none."""
    found = read_json(night.folder / AUDIT)
    if found is None:
        raise InputError(f"night {night.id} drew no sample; run `stillhouse night` first")
    labels = {one.identity: one for one in night.warehouse.labels(row["identity"] for row in found["sampled"])}
    sampled = [
        Sampled(labels[row["identity"]], **{name: value for name, value in row.items() if name != "identity"})
        for row in found["sampled"]
    ]
    return Audit(sampled, [Stratum(**row) for row in found["strata"]], found["confidence"])


def _chance(what: str, night: Night, label: Label) -> float:
    """A number from 0 to 1, by a hash: the same for a label on every night."""
    return int(digest(what, night.settings.seed, label.identity), 16) / 16**16


def _least_sure(label: Label) -> float:
    """A label is right when every field is, so it is as sure as its least sure field."""
    return min(label.confidence.values())
