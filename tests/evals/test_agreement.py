import random

import pytest

from evals.agreement import Agreement, agreement, gold_scores
from evals.intervals import wilson
from labels.records import Verdict
from labels.semantic_roles import SemanticRoles


def answer(product="milk", brand="", attributes=()):
    return SemanticRoles(product=product, brand=brand, attributes=list(attributes))


def verdict(number, reviewer, product="milk", brand="", attributes=(), decision="corrected", **more):
    value = None if decision == "cant_tell" else answer(product, brand, attributes).to_json()
    return Verdict(f"id{number}", f"query {number}", reviewer, decision, value, **more)


def test_kappa_of_known_counts():
    """Cohen's table: 20 both yes, 15 both no, 5 and 10 apart, which agree by 0.4 beyond chance."""
    pairs = [("a", "a")] * 20 + [("a", "b")] * 5 + [("b", "a")] * 10 + [("b", "b")] * 15
    said = [
        verdict(n, who, word) for n, pair in enumerate(pairs) for who, word in zip(("ann", "bob"), pair, strict=True)
    ]
    found = agreement(SemanticRoles, said)
    assert found["product"].labels == 50
    assert found["product"].kappa == pytest.approx(0.4)
    assert found["product"].alpha == pytest.approx(1 - 99 * 15 / (55 * 45))  # 1 - (n - 1)·observed / expected
    assert found["brand"] == Agreement(50, None, None)
    assert found["label"] == found["product"]


def test_krippendorffs_own_example():
    """Three coders with gaps, of whom the library's documentation has alpha = 0.691358."""
    gap = None
    rows = {
        "ann": [gap, gap, gap, gap, gap, 3, 4, 1, 2, 1, 1, 3, 3, gap, 3],
        "bob": [1, gap, 2, 1, 3, 3, 4, 3, gap, gap, gap, gap, gap, gap, gap],
        "cid": [gap, gap, 2, 1, 3, 4, 4, gap, 2, 1, 1, 3, 3, gap, 4],
    }
    said = [
        verdict(n, who, f"p{word}") if word else verdict(n, who, decision="cant_tell")
        for who, row in rows.items()
        for n, word in enumerate(row)
    ]
    assert agreement(SemanticRoles, said)["product"].alpha == pytest.approx(0.691358, abs=1e-6)


def test_by_chance_nobody_agrees_and_with_oneself_fully():
    drawn = random.Random(0)
    said = [verdict(n, who, drawn.choice(["tea", "milk"])) for n in range(2000) for who in ("ann", "bob")]
    assert agreement(SemanticRoles, said)["product"].kappa == pytest.approx(0, abs=0.06)
    same = [verdict(n, who, f"p{n % 3}") for n in range(30) for who in ("ann", "bob", "cid")]
    assert agreement(SemanticRoles, same)["product"] == Agreement(30, 1, 1)


def test_the_order_of_a_lists_values_is_no_disagreement():
    said = [verdict(n, "ann", f"p{n}", "", ["red", "big"]) for n in range(3)]
    said += [verdict(n, "bob", f"p{n}", "", ["big", "red"]) for n in range(3)]
    assert agreement(SemanticRoles, said)["label"] == Agreement(3, 1, 1)


def test_a_later_verdict_replaces_the_reviewers_earlier_and_one_reviewer_is_none():
    said = [verdict(n, "ann", "wrong") for n in range(3)]
    said += [verdict(n, who, f"p{n}") for n in range(3) for who in ("ann", "bob")]
    assert agreement(SemanticRoles, said)["product"] == Agreement(3, 1, 1)
    alone = [one for one in said if one.reviewer == "ann"]
    assert agreement(SemanticRoles, alone)["product"] == Agreement(0, None, None)
    assert agreement(SemanticRoles, [])["label"] == Agreement(0, None, None)


def test_a_right_verdict_without_a_value_means_its_draft():
    said = [verdict(n, "ann", f"p{n}") for n in range(3)]
    said += [Verdict(f"id{n}", f"query {n}", "bob", "right", None, draft=answer(f"p{n}").to_json()) for n in range(3)]
    assert agreement(SemanticRoles, said)["label"] == Agreement(3, 1, 1)


def test_simulated_verdicts_count_only_among_themselves():
    simulated = [verdict(n, who, f"p{n}", simulated=True) for n in range(3) for who in ("x", "y")]
    assert agreement(SemanticRoles, simulated)["product"].labels == 3
    assert agreement(SemanticRoles, [*simulated, verdict(0, "ann")])["product"].labels == 0


def test_reviewers_are_scored_on_hidden_gold_alone():
    gold = {f"query {n}": answer(f"p{n}") for n in range(40)}
    said = [verdict(n, "ann", f"p{n}", part="gold") for n in range(40)]
    said += [verdict(n, "bob", f"p{n}" if n % 2 else "wrong", part="gold") for n in range(20)]
    said += [verdict(n, "bob", "wrong") for n in range(20, 30)]  # not hidden gold
    said += [verdict(n, "bob", decision="cant_tell", part="gold") for n in range(30, 40)]
    said += [verdict(99, "bob", "wrong", part="gold")]  # its gold is gone
    ann, bob = gold_scores(SemanticRoles, said, gold)
    assert (ann.reviewer, ann.checked, ann.right, ann.doubtful) == ("ann", 40, 40, False)
    assert (bob.reviewer, bob.checked, bob.right, bob.doubtful) == ("bob", 20, 10, True)
    assert (bob.low, bob.high) == wilson(10, 20)


def test_a_few_errors_make_nobody_doubtful():
    gold = {"query 0": answer("p0")}
    (one,) = gold_scores(SemanticRoles, [verdict(0, "ann", "p0", part="gold")], gold)
    assert not one.doubtful
    said = [
        Verdict(f"id{n}", "query 0", "ann", "corrected", answer("p1" if n < 2 else "p0").to_json(), part="gold")
        for n in range(10)
    ]
    (one,) = gold_scores(SemanticRoles, said, gold)
    assert (one.right, one.doubtful) == (8, False)
    assert gold_scores(SemanticRoles, [], gold) == []
