import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.metrics import difference_interval, ratio_interval, score
from labels.errors import InputError
from labels.semantic_roles import SemanticRoles

word = st.sampled_from(["", "milk", "oat", "acme"])
role = st.builds(
    SemanticRoles, product=word, brand=word, attributes=st.lists(word.filter(bool), max_size=3, unique=True)
)
some_pairs = st.lists(st.tuples(st.none() | role, role), min_size=1, max_size=12)
quick = settings(max_examples=40, deadline=None)


def roles(product="", brand="", *attributes):
    return SemanticRoles(product=product, brand=brand, attributes=list(attributes))


def test_hand_computed_case():
    pairs = [
        (roles("milk", "acme", "oat"), roles("milk", "acme")),  # 2 of 3 answered right, 2 of 2 found
        (roles("tea"), roles("tea", "zen", "green")),  # 1 of 1, 1 of 3
    ]
    found = score(pairs)
    assert (found.precision, found.recall) == (3 / 4, 3 / 5)
    assert found.f1 == pytest.approx(2 * 3 / (4 + 5))
    assert (found.exact, found.invalid_rate, found.queries) == (0, 0, 2)
    assert found.by_field["product"].f1 == 1
    assert found.by_field["brand"].recall == 0.5
    assert found.by_field["attributes"].precision == 0


def test_no_answer_counts_against_recall_and_is_not_lost():
    right = (roles("milk", "acme"), roles("milk", "acme"))
    found = score([right, (None, roles("tea", "zen"))])
    assert (found.precision, found.recall, found.f1) == (1, 0.5, pytest.approx(2 / 3))
    assert (found.queries, found.exact, found.invalid_rate) == (2, 0.5, 0.5)


def test_no_answer_is_not_exact_even_where_gold_is_empty():
    found = score([(None, roles()), (roles(), roles())])
    assert (found.exact, found.invalid_rate) == (0.5, 0.5)


def test_weights_are_traffic():
    pairs = [(roles("milk"), roles("milk")), (roles("tea"), roles("coffee"))]
    found = score(pairs, weights=[9, 1])
    assert found.f1 == pytest.approx(0.9)
    assert found.exact == pytest.approx(0.9)


@quick
@given(some_pairs)
def test_whole_weights_are_the_same_as_repeated_queries(pairs):
    weights = [1 + place % 3 for place in range(len(pairs))]
    repeated = [pair for pair, times in zip(pairs, weights, strict=True) for _ in range(times)]
    weighed, plain = score(pairs, weights), score(repeated)
    assert weighed.f1 == pytest.approx(plain.f1)
    assert weighed.exact == pytest.approx(plain.exact)


@quick
@given(some_pairs)
def test_agrees_with_scikit_learn(pairs):
    from sklearn.metrics import precision_recall_fscore_support

    truth, answered = [], []
    for answer, gold in pairs:
        found = answer.items() if answer else frozenset()
        for item in found | gold.items():
            truth.append(item in gold.items())
            answered.append(item in found)
    wanted = (0, 0, 0)
    if truth:
        wanted = precision_recall_fscore_support(truth, answered, average="binary", pos_label=True, zero_division=0)[:3]
    found = score(pairs)
    assert (found.precision, found.recall, found.f1) == pytest.approx(wanted)


@quick
@given(some_pairs)
def test_intervals_hold_the_point_and_lie_in_0_to_1(pairs):
    found = score(pairs)
    for name in ("precision", "recall", "f1"):
        low, high = getattr(found, f"{name}_interval")
        assert 0 <= low <= getattr(found, name) <= high <= 1


def test_few_perfect_answers_are_not_certain():
    three = [(roles("milk"), roles("milk"))] * 3
    assert score(three).f1_interval[0] < 0.5
    assert score(three * 200).f1_interval[0] > 0.99
    assert score(three * 200, weights=[10_000] + [0.001] * 599).f1_interval[0] < 0.5


def test_same_seed_same_interval():
    rng = np.random.default_rng(1)
    pairs = [(roles("milk" if rng.random() < 0.8 else "tea"), roles("milk")) for _ in range(60)]
    assert score(pairs, seed=3) == score(pairs, seed=3)
    assert score(pairs, seed=3).f1_interval != score(pairs, seed=4).f1_interval


def test_bootstrap_interval_covers_the_true_f1():
    rng = np.random.default_rng(0)
    covered = 0
    for draw in range(60):
        pairs = [(roles("milk" if rng.random() < 0.8 else "tea"), roles("milk")) for _ in range(120)]
        low, high = score(pairs, seed=draw).f1_interval
        covered += low <= 0.8 <= high
    assert covered >= 52  # 95% of 60 is 57, give or take 1.7


def test_paired_ratio_is_narrower_than_unpaired_and_holds_the_ratio():
    rng = np.random.default_rng(0)
    golds = [roles("milk", "acme") for _ in range(200)]
    teacher = [(gold if rng.random() < 0.8 else roles("tea"), gold) for gold in golds]
    student = [(answer if rng.random() < 0.95 else roles("tea"), gold) for answer, gold in teacher]
    ratio = ratio_interval(student, teacher)
    assert ratio is not None
    low, high = ratio
    assert low < score(student).f1 / score(teacher).f1 < high <= 1
    assert high - low < (score(student).f1_interval[1] - score(student).f1_interval[0]) / score(teacher).f1
    assert ratio_interval(teacher, teacher) == (1, 1)


def test_ratio_to_nothing_is_none():
    wrong = [(roles("tea"), roles("milk"))] * 3
    assert ratio_interval(wrong, wrong) is None


def test_ratio_wants_the_same_queries():
    with pytest.raises(InputError, match="same queries"):
        ratio_interval([(None, roles("milk"))], [(None, roles("tea"))])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.nan]])
def test_bad_weights_are_refused(weights):
    with pytest.raises(InputError, match="weights: wanted 2"):
        score([(None, roles("milk")), (None, roles("tea"))], weights)


def test_nothing_to_score_is_refused():
    with pytest.raises(InputError, match="check the gold file"):
        score([])


def test_to_json_is_json():
    shown = json.loads(json.dumps(score([(roles("milk"), roles("milk", "acme"))]).to_json()))
    assert {"precision", "recall", "f1", "precision_interval", "recall_interval", "f1_interval"} <= shown.keys()
    assert shown["f1"] == 0.6667
    assert len(shown["f1_interval"]) == 2
    brand = shown["by_field"]["brand"]
    assert (brand["precision"], brand["recall"], brand["f1"]) == (0, 0, 0)


@quick
@given(some_pairs)
def test_macro_f1_is_the_mean_over_the_fields_that_are_there(pairs):
    found = score(pairs)
    held = {field for answer, gold in pairs for field, _ in (answer.items() if answer else frozenset()) | gold.items()}
    wanted = np.mean([found.by_field[field].f1 for field in held]) if held else 0
    assert found.macro_f1 == pytest.approx(wanted)
    assert found.macro_f1_interval[0] <= found.macro_f1 <= found.macro_f1_interval[1]
    for part in found.by_field.values():
        assert part.f1_interval[0] <= part.f1 <= part.f1_interval[1]


def test_a_rare_field_weighs_as_much_as_a_common_one_in_the_macro_figure_alone():
    pairs = [(roles("milk"), roles("milk"))] * 98 + [(roles("milk", "acme"), roles("milk", "zen"))] * 2
    found = score(pairs)
    assert found.f1 == pytest.approx(0.98, abs=0.01)
    assert found.macro_f1 == 0.5


def some_answers(golds, rng, right):
    return [(gold if rng.random() < right else roles("tea"), gold) for gold in golds]


def test_the_interval_of_a_difference_covers_the_true_one():
    """Two authors right 80% and 75% of the time on one value a query: the true difference of F1 is 0.05."""
    rng, golds = np.random.default_rng(0), [roles("milk")] * 150
    intervals = [
        difference_interval(some_answers(golds, rng, 0.8), some_answers(golds, rng, 0.75), seed=n) for n in range(40)
    ]
    assert sum(low <= 0.05 <= high for low, high in intervals) >= 34  # 38, give or take 1.4
    assert sum(low <= 0 <= high for low, high in intervals) < 34, "so wide an interval says nothing"


def test_a_difference_turns_round_with_its_sides_and_pairing_narrows_it():
    rng, golds = np.random.default_rng(1), [roles("milk", "acme")] * 200
    teacher = some_answers(golds, rng, 0.8)
    student = [(answer if rng.random() < 0.95 else roles("tea"), gold) for answer, gold in teacher]
    low, high = difference_interval(student, teacher)
    assert difference_interval(teacher, student) == pytest.approx((-high, -low))
    assert low < score(student).f1 - score(teacher).f1 < high < 0
    unpaired = difference_interval(student, list(np.random.default_rng(2).permutation(np.array(teacher, dtype=object))))
    assert high - low < unpaired[1] - unpaired[0]


def test_recall_may_drop_where_f1_does_not():
    golds = [roles("milk", "acme")] * 100
    cautious = [(roles("milk"), gold) for gold in golds]
    bold = [(roles("milk", "zen"), gold) for gold in golds]
    assert difference_interval(cautious, bold)[0] > 0
    low, high = difference_interval(cautious, bold, figure="recall")
    assert low < 0 < high


@pytest.mark.parametrize(("queries", "most"), [(5, 0.5), (50, 0.08), (5000, 0.001)])
def test_answers_all_alike_are_no_proof_where_they_are_few(queries, most):
    same = [(roles("milk"), roles("milk"))] * queries
    low, high = difference_interval(same, same)
    assert most / 2 < high <= most
    assert low == -high


def test_a_difference_wants_the_same_queries():
    with pytest.raises(InputError, match="same queries"):
        difference_interval([(None, roles("milk"))], [(None, roles("tea"))])
