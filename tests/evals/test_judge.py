import json
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from pydantic import Field

from evals.intervals import wilson
from evals.judge import grouped, judge, more_verdicts
from evals.sample import Audit, Sampled, Stratum
from labels.records import Label, Verdict
from labels.task import Task

RIGHT, WRONG, UNTOLD = "right", "corrected", "cant_tell"


class Found(Task):
    """Find it."""

    name: ClassVar[str] = "found"
    product: str = Field(description="the thing")
    attributes: list[str] = Field(description="its qualities")


def answer(product="milk", *attributes):
    return Found(product=product, attributes=list(attributes)).to_json()


def label(number, value=None, sure=None):
    return Label(
        identity=f"id{number}", query=f"query {number}", status="accepted", value=value or answer(),
        confidence={} if sure is None else {"product": sure}, reason="", raw="", facts=(), task="t", task_version="1",
        model="m", prompt="p", night="n", tokens_in=1, tokens_out=1,
    )  # fmt: skip


def review(*parts, confidence=None):
    """An audit and its verdicts, of (band, labels there, traffic each, decisions of those sampled) a stratum.

    A decision of None: not reviewed yet.
    """
    sampled, strata, said = [], [], []
    for band, there, traffic, decisions in parts:
        strata.append(Stratum(f"{band}: all", band, there, there * traffic))
        for decision in decisions:
            one = label(len(sampled))
            sampled.append(Sampled(one, f"{band}: all", band, len(decisions) / there, traffic))
            if decision:
                value = {RIGHT: answer(), WRONG: answer("tea"), UNTOLD: None}[decision]
                said.append(Verdict(one.identity, one.query, "ann", decision, value))
    return Audit(sampled, strata, confidence or {}), said


def test_no_verdict_no_judgement():
    audit, _ = review(("tail", 100, 1.0, [None] * 5))
    assert judge(audit, [], Found) is None
    assert judge(Audit([], []), [], Found) is None
    assert judge(*review(("tail", 100, 1.0, [UNTOLD] * 5)), Found) is None


def test_weighs_by_labels_and_by_traffic():
    audit, said = review(("head", 10, 90.0, [RIGHT] * 10), ("tail", 100, 1.0, [RIGHT] * 5 + [WRONG] * 5))
    found = judge(audit, said, Found)
    assert found.precision == pytest.approx((10 + 50) / 110)
    assert found.low < found.precision < found.high
    assert (found.verdicts, found.undecided, found.unreviewed, found.simulated) == (20, 0, 0, False)
    assert found.by_traffic.share == pytest.approx((900 + 50) / 1000)
    assert found.by_traffic.high - found.by_traffic.low < (found.high - found.low) / 5  # all of the head was seen
    assert list(found.by_stratum) == ["head", "tail"]
    assert (found.by_stratum["head"].share, found.by_stratum["tail"].share) == (1, 0.5)
    assert list(found.strata) == ["head: all", "tail: all"]


def test_other_verdicts_are_ignored_and_every_part_counts():
    audit, said = review(("tail", 100, 1.0, [RIGHT] * 6 + [WRONG] * 4))
    other = Verdict("elsewhere", "q", "ann", WRONG, answer("tea"))
    active = [replace(one, part="active") for one in said]
    assert judge(audit, [*active, other], Found) == judge(audit, said, Found)


def test_who_did_not_respond_is_stood_for_by_the_stratum():
    audit, said = review(("head", 100, 1.0, [RIGHT] * 10), ("tail", 100, 1.0, [WRONG] * 5 + [UNTOLD] * 3 + [None] * 2))
    found = judge(audit, said, Found)
    assert found.precision == pytest.approx(0.5)
    assert (found.verdicts, found.undecided, found.unreviewed) == (15, 3, 2)


def test_a_census_with_gaps_is_not_certain():
    whole = judge(*review(("tail", 10, 1.0, [RIGHT] * 8 + [WRONG] * 2)), Found)
    assert (whole.low, whole.precision, whole.high) == (0.8, 0.8, 0.8)
    gaps = judge(*review(("tail", 10, 1.0, [RIGHT] * 4 + [WRONG] + [None] * 5)), Found)
    assert gaps.low < gaps.precision < gaps.high


def test_a_stratum_nobody_decided_joins_its_nearest():
    strata = [Stratum(name, name[:4], 50, 50.0) for name in ("head: a", "tail: b", "tail: c", "tail: d")]
    decided = ["head: a"] * 2 + ["tail: b"] * 2 + ["tail: c"]
    assert [len(group) for group in grouped(strata, decided)] == [1, 3]
    assert [len(group) for group in grouped(strata, [*decided, *["tail: d"] * 2])] in ([1, 1, 2], [1, 2, 1])
    assert grouped(strata, ["tail: b"]) == [strata]
    single = [Stratum("head: a", "head", 1, 50.0), *strata[1:]]
    assert grouped(single, ["head: a", *[one.name for one in strata[1:]] * 2])[0] == single[:1]  # that was all of it
    found = judge(*review(("head", 50, 2.0, [None] * 5), ("tail", 50, 1.0, [RIGHT] * 3 + [WRONG] * 3)), Found)
    assert found.precision == pytest.approx(0.5)
    assert list(found.by_stratum) == ["tail"]
    assert list(found.strata) == ["head: all + tail: all"]


def test_one_simulated_verdict_makes_it_simulated():
    audit, said = review(("tail", 100, 1.0, [RIGHT] * 3 + [UNTOLD]))
    for place in (0, 3):
        some = [replace(one, simulated=at == place) for at, one in enumerate(said)]
        assert judge(audit, some, Found).simulated
    assert not judge(audit, said, Found).simulated


def test_fields_are_counted_by_their_values():
    drafts = [answer("milk", "red", "big"), answer("milk"), answer("", "red"), answer("tea", "old")]
    truths = [answer("milk", "red"), answer("tea", "new"), answer("", "red"), answer("tea", "old")]
    audit, said = review(("tail", 40, 1.0, [RIGHT] * 4))
    said = [
        replace(one, draft=draft, value=None if draft == truth else truth, decision=RIGHT if draft == truth else WRONG)
        for one, draft, truth in zip(said, drafts, truths, strict=True)
    ]
    found = judge(audit, said, Found)
    product, attributes = found.fields["product"], found.fields["attributes"]
    assert (product.precision.share, product.recall.share, product.f1.share) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert product.precision.verdicts == 3  # one label has no product, and needs none
    assert attributes.precision.share == pytest.approx(3 / 4)  # red, red, old of red, big, red, old
    assert attributes.recall.share == pytest.approx(3 / 4)
    assert found.precision == 0.5
    assert found.fields_by_traffic["product"].f1.share == pytest.approx(2 / 3)


def test_without_a_draft_the_labels_value_was_shown():
    audit, said = review(("tail", 40, 1.0, [RIGHT, WRONG]))
    assert judge(audit, said, Found).fields["product"].precision.share == pytest.approx(0.5)


def test_f1_has_an_interval_like_wilsons_where_the_sample_is_plain():
    audit, said = review(("tail", 10_000, 1.0, [RIGHT] * 90 + [WRONG] * 10))
    f1 = judge(audit, said, Found).fields["product"].f1
    assert f1.share == pytest.approx(0.9)
    assert (f1.low, f1.high) == pytest.approx(wilson(90, 100), abs=0.01)
    assert judge(audit, said, Found) == judge(audit, said, Found)


def test_a_field_nobody_fills_is_nought_and_unknown():
    audit, said = review(("tail", 100, 1.0, [RIGHT] * 5))
    nothing = judge(audit, said, Found).fields["attributes"]
    assert (nothing.f1.share, nothing.f1.low, nothing.f1.high) == (0, 0, 1)


def confident(number=100, there=1000):
    """One stratum of which the 80% of high confidence are right; by bad luck they are 90% of the sample."""
    decisions = [RIGHT] * 90 + [WRONG] * 10
    audit, said = review(("tail", there, 1.0, decisions[:number]), confidence={"tail: all": [0.9] * 800 + [0.1] * 200})
    sampled = [
        replace(one, label=replace(one.label, confidence={"product": 0.9 if decision == RIGHT else 0.1}))
        for one, decision in zip(audit.sampled, decisions, strict=False)
    ]
    return replace(audit, sampled=sampled), said


def test_confidence_of_all_labels_corrects_the_sample_and_narrows_the_interval():
    audit, said = confident()
    found = judge(audit, said, Found)
    assert found.precision == pytest.approx(0.9)
    assert 0.79 < found.ppi.share < 0.86
    assert found.ppi.high - found.ppi.low < (found.high - found.low) * 0.9
    assert found.ppi.effective > found.effective


def test_without_confidence_there_is_nothing_to_predict_by():
    assert judge(*review(("tail", 100, 1.0, [RIGHT] * 5 + [WRONG])), Found).ppi is None


def test_to_json_is_json():
    audit, said = confident()
    shown = json.loads(json.dumps(judge(audit, said, Found).to_json(), allow_nan=False))
    assert shown["precision"] == pytest.approx(0.9)
    assert shown["by_stratum"]["tail"]["verdicts"] == 100
    assert shown["fields"]["product"]["f1"]["share"] == pytest.approx(0.9)
    assert set(shown["ppi"]) == {"share", "low", "high", "verdicts", "effective"}


def test_how_many_verdicts_more_it_takes():
    found = judge(*review(("tail", 10_000, 1.0, [RIGHT] * 90 + [WRONG] * 10)), Found)
    assert more_verdicts(found, found.low) == 0
    assert more_verdicts(found, found.precision) is None
    assert more_verdicts(found, 0.95) is None
    assert more_verdicts(found, found.precision - 1e-9) is None  # billions
    for threshold in (0.84, 0.87, 0.89):
        more = more_verdicts(found, threshold)
        low_of = [wilson(0.9 * n, n)[0] for n in ((100 + m) * found.effective / 100 for m in (more - 1, more))]
        assert low_of[0] < threshold <= low_of[1]


@pytest.mark.parametrize("untold", [0.0, 0.3])
def test_the_interval_covers_when_some_cannot_be_told(untold):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        parts = [
            (
                band,
                there,
                1.0,
                [UNTOLD if rng.random() < untold else RIGHT if rng.random() < good else WRONG for _ in range(60)],
            )
            for band, there, good in (("head", 120, 0.95), ("tail", 1200, 0.85))
        ]
        found = judge(*review(*parts), Found)
        covered += found.low <= (0.95 * 120 + 0.85 * 1200) / 1320 <= found.high
    assert covered >= 182
