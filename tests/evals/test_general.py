import json

import numpy as np
import pytest

from evals.general import Ability, General, Question, read_general, regression, right
from labels.errors import InputError

ASKED = {"messages": [{"role": "user", "content": "2 + 2?"}], "answer": "4"}


def write(folder, *rows):
    path = folder / "general.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_questions_and_texts_are_read_in_their_order(tmp_path):
    path = write(tmp_path, ASKED, "", {"text": "Once upon a time."}, ASKED | {"answer": "{}"})
    assert read_general(path) == General(
        [Question(ASKED["messages"], "4"), Question(ASKED["messages"], "{}")], ["Once upon a time."]
    )


@pytest.mark.parametrize(
    "row", ["{", "[]", "3", "{}", '{"text": ""}', '{"messages": [], "answer": "4"}', '{"messages": [{}], "answer": "4"}',
            '{"messages": [{"role": "user", "content": "x"}], "answer": 4}', '{"text": 3}']
)  # fmt: skip
def test_a_row_that_is_neither_is_named(tmp_path, row):
    with pytest.raises(InputError, match=r"general\.jsonl, line 2: wanted"):
        read_general(write(tmp_path, ASKED, row))


def test_nothing_to_ask_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no row"):
        read_general(write(tmp_path, ""))
    with pytest.raises(InputError, match="can't be read"):
        read_general(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("said", "wanted", "same"),
    [(" Paris\n", "paris", True), ("Paris.", "paris", False), ('{"b": 1, "a": [2]}', '{"a":[2],"b":1}', True),
     ('{"a": 1', '{"a": 1}', False), ("4", "4.0", True), ("", "x", False)],
)  # fmt: skip
def test_an_answer_is_right_by_its_json_or_by_its_words(said, wanted, same):
    assert right(said, wanted) is same


def test_losses_are_shares_of_what_there_was():
    before = Ability([True] * 80 + [False] * 20, [-200.0] * 10, [100] * 10)
    after = Ability([True] * 76 + [False] * 24, [-210.0] * 10, [100] * 10)
    found = regression(before, after)
    assert (found.accuracy_before, found.accuracy_after) == (0.8, 0.76)
    assert found.accuracy_loss == pytest.approx(0.05)
    assert found.accuracy_loss_interval[0] <= 0.05 <= found.accuracy_loss_interval[1] < 0.15
    assert found.perplexity_before == pytest.approx(np.exp(2))
    assert found.perplexity_rise == pytest.approx(np.exp(0.1) - 1)
    assert found.worst == found.perplexity_rise
    assert regression(before, before).worst == 0
    assert regression(after, before).accuracy_loss < 0, "a gain is no loss"


def test_only_what_was_asked_is_told():
    texts = Ability([], [-5.0], [3])
    found = regression(texts, texts)
    assert (found.accuracy_loss, found.perplexity_rise) == (None, 0)
    questions = Ability([False, False], [], [])
    found = regression(questions, Ability([True, False], [], []))
    assert (found.accuracy_loss, found.perplexity_rise) == (0, None)
    with pytest.raises(InputError, match="same questions"):
        regression(texts, questions)
