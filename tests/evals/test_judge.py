import json

import numpy as np
import pytest

from evals.judge import judge
from labels.records import Verdict


def verdict(number, decision="right", stratum="tail", chance=0.1, simulated=False):
    value = None if decision == "cant_tell" else "{}"
    return Verdict(f"id{number}", f"query {number}", "ann", decision, value, simulated, stratum, chance, "now")


def test_no_verdict_no_judgement():
    assert judge([]) is None
    assert judge([verdict(0, "cant_tell")]) is None


def test_weighs_by_inclusion_probability():
    said = [verdict(n, "right", "head", 1.0) for n in range(10)]
    said += [verdict(n, "right" if n < 15 else "corrected", "tail", 0.1) for n in range(10, 20)]
    found = judge(said)
    assert found.precision == pytest.approx((10 + 50) / 110)
    assert found.low < found.precision < found.high
    assert (found.verdicts, found.undecided, found.simulated) == (20, 0, False)
    assert list(found.by_stratum) == ["head", "tail"]
    assert found.by_stratum["head"].share == 1
    assert found.by_stratum["tail"].share == 0.5


def test_cant_tell_is_counted_and_its_stratum_keeps_its_weight():
    said = [verdict(n, "right", "head", 0.5) for n in range(10)]
    said += [verdict(n, "corrected", "tail", 0.5) for n in range(10, 15)]
    said += [verdict(n, "cant_tell", "tail", 0.5) for n in range(15, 20)]
    found = judge(said)
    assert found.precision == pytest.approx(0.5)
    assert (found.verdicts, found.undecided) == (15, 5)


def test_one_simulated_verdict_makes_it_simulated():
    assert judge([verdict(0), verdict(1, simulated=True)]).simulated
    assert judge([verdict(0), verdict(1, "cant_tell", simulated=True)]).simulated


def test_to_json_is_json():
    shown = json.loads(json.dumps(judge([verdict(0), verdict(1, "corrected")]).to_json()))
    assert shown["precision"] == 0.5
    assert shown["by_stratum"]["tail"]["verdicts"] == 2


def test_interval_covers_the_true_precision_when_some_cannot_be_told():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        said = [
            verdict(n, rng.choice(["cant_tell", "right" if rng.random() < good else "corrected"], p=[0.2, 0.8]), *place)
            for place, good in ((("head", 0.5), 0.95), (("tail", 0.05), 0.85))
            for n in range(60)
        ]
        found = judge(said)
        covered += found.low <= (0.95 * 120 + 0.85 * 1200) / 1320 <= found.high
    assert covered >= 182
