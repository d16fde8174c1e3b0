import pytest

from flows.settings import ROOT
from labels.errors import PreflightError
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from student.preflight import IGNORED, check_batches, check_rows

ROWS = {
    "oat milk 1 l": SemanticRoles(product="oat milk", brand="", attributes=["1 l"]).to_json(),
    "verdant machine juice": SemanticRoles(product="juice", brand="verdant machine", attributes=[]).to_json(),
    "thé glacé": SemanticRoles(product="thé glacé", brand="", attributes=[]).to_json(),
}


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ROOT / "demo/models/student-base")


class Row:
    """One training row as it should be; each test spoils one thing."""

    def __init__(self, tokenizer, query, facts=()):
        prompt = tokenizer.apply_chat_template(
            messages(SemanticRoles, query, facts), add_generation_prompt=True, return_dict=False
        )
        answer = tokenizer(ROWS[query], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        self.prompt, self.ids, self.labels = len(prompt), prompt + answer, [IGNORED] * len(prompt) + answer


def batch_of(*rows, padding_label=IGNORED):
    import torch

    width = max(len(row.ids) for row in rows) + 2

    def padded(values, filling):
        return torch.tensor([list(value) + [filling] * (width - len(value)) for value in values])

    return {
        "input_ids": padded([row.ids for row in rows], 2),
        "labels": padded([row.labels for row in rows], padding_label),
        "attention_mask": padded([[1] * len(row.ids) for row in rows], 0),
    }


def refused(tokenizer, *rows, **other):
    with pytest.raises(PreflightError) as caught:
        check_batches([batch_of(*rows, **other)], tokenizer, SemanticRoles, ROWS)
    return str(caught.value)


def test_correct_batches_pass_and_are_counted(tokenizer):
    rows = [Row(tokenizer, query) for query in ROWS]
    batches = [batch_of(*rows[:2]), batch_of(*rows[2:])]
    assert check_batches(batches, tokenizer, SemanticRoles, ROWS) == 3


def test_a_mask_with_a_hole_fails_showing_the_tokens_with_loss_in_brackets(tokenizer):
    good, row = Row(tokenizer, "verdant machine juice"), Row(tokenizer, "oat milk 1 l")
    row.labels[-3] = IGNORED
    said = refused(tokenizer, good, row)  # the second row of a batch is looked at too
    assert "the loss mask has holes" in said
    assert '[{"product":"]' in said
    assert "<|begin_of_text|>" in said
    assert "[<|begin_of_text|>]" not in said


def test_loss_on_the_prompt_fails(tokenizer):
    row = Row(tokenizer, "oat milk 1 l")
    row.labels = list(row.ids)
    assert "[<|begin_of_text|>]" in refused(tokenizer, row)
    row = Row(tokenizer, "oat milk 1 l")
    row.labels[row.prompt - 1] = row.ids[row.prompt - 1]
    assert "[<|assistant|>]" in refused(tokenizer, row)


def test_loss_that_starts_late_fails(tokenizer):
    row = Row(tokenizer, "oat milk 1 l")
    row.labels[row.prompt] = IGNORED
    assert "a training prompt is not what the server will render" in refused(tokenizer, row)


def test_a_row_without_loss_fails(tokenizer):
    row = Row(tokenizer, "oat milk 1 l")
    row.labels = [IGNORED] * len(row.ids)
    assert "carries no loss at all" in refused(tokenizer, row)


def test_loss_on_padding_fails(tokenizer):
    assert "covers padding" in refused(tokenizer, Row(tokenizer, "oat milk 1 l"), padding_label=2)


def test_a_row_without_its_end_token_fails(tokenizer):
    row = Row(tokenizer, "oat milk 1 l")
    row.ids, row.labels = row.ids[:-1], row.labels[:-1]
    assert "was truncated or has no end token" in refused(tokenizer, row)


def test_only_white_space_may_follow_the_end_token(tokenizer):
    row = Row(tokenizer, "oat milk 1 l")
    for text, passes in ((" \n", True), (" and more", False)):
        after = tokenizer(text, add_special_tokens=False)["input_ids"]
        row.ids, row.labels = row.ids + after, row.labels + after
        if passes:  # as ChatML's templates end, and TRL's DPO rows with them
            assert check_batches([batch_of(row)], tokenizer, SemanticRoles, ROWS) == 1
        else:
            assert "was truncated or has no end token" in refused(tokenizer, row)


def test_a_truncated_row_fails_even_where_truncation_kept_an_end_token(tokenizer):
    row = Row(tokenizer, "oat milk 1 l")
    row.ids, row.labels = row.ids[:-4], row.labels[:-4]
    assert "was truncated or has no end token" in refused(tokenizer, row)
    row.ids.append(tokenizer.eos_token_id), row.labels.append(tokenizer.eos_token_id)
    assert "the tokens with loss spell" in refused(tokenizer, row)
    row = Row(tokenizer, "oat milk 1 l")
    row.ids, row.labels = row.ids[3:], row.labels[3:]  # cut from the left
    assert "is not what the server will render" in refused(tokenizer, row)


def test_a_prompt_rendered_otherwise_fails(tokenizer):
    assert "is not what the server will render" in refused(tokenizer, Row(tokenizer, "oat milk 1 l", ["a fact"]))
    row = Row(tokenizer, "oat milk 1 l")
    row.ids.insert(0, row.ids[0]), row.labels.insert(0, IGNORED)  # a second BOS, the classic
    assert "is not what the server will render" in refused(tokenizer, row)


def test_the_answer_of_another_row_fails_showing_what_was_wanted(tokenizer):
    row, other = Row(tokenizer, "oat milk 1 l"), Row(tokenizer, "verdant machine juice")
    row.ids[row.prompt :] = row.labels[row.prompt :] = other.ids[other.prompt :]
    said = refused(tokenizer, row)
    assert "the tokens with loss spell" in said
    assert f"wanted {ROWS['oat milk 1 l']!r}" in said


def test_no_batch_at_all_is_no_pass(tokenizer):
    with pytest.raises(PreflightError, match="saw no training batch at all"):
        check_batches([], tokenizer, SemanticRoles, ROWS)


def packed(*rows):
    """The rows in one sequence, as TRL packs them: positions begin anew, the first token of a row carries no loss."""
    import torch

    return {
        "input_ids": torch.tensor([[token for row in rows for token in row.ids]]),
        "labels": torch.tensor([[label for row in rows for label in row.labels]]),
        "position_ids": torch.tensor([[place for row in rows for place in range(len(row.ids))]]),
    }


def test_every_row_of_a_packed_sequence_is_checked(tokenizer):
    rows = [Row(tokenizer, query) for query in ROWS]
    assert check_batches([packed(*rows), packed(rows[1])], tokenizer, SemanticRoles, ROWS) == 4
    rows[1].labels[rows[1].prompt] = IGNORED
    with pytest.raises(PreflightError, match="not what the server will render"):
        check_batches([packed(*rows)], tokenizer, SemanticRoles, ROWS)


def test_packed_rows_that_were_cut_or_run_together_fail(tokenizer):
    import torch

    rows = [Row(tokenizer, query) for query in ROWS]
    one = packed(*rows)
    one["position_ids"] = torch.arange(one["input_ids"].numel())[None]  # as if they were one row
    with pytest.raises(PreflightError, match="the loss mask has holes"):
        check_batches([one], tokenizer, SemanticRoles, ROWS)
    gap = packed(*rows)
    gap["position_ids"][0, 5:] += 1
    with pytest.raises(PreflightError, match="a packed row's positions are"):
        check_batches([gap], tokenizer, SemanticRoles, ROWS)


def test_a_prompt_may_have_several_completions_and_no_other(tokenizer):
    row, other = Row(tokenizer, "oat milk 1 l"), Row(tokenizer, "verdant machine juice")
    expected = {tuple(row.ids[: row.prompt]): list(ROWS.values())[:2], tuple(other.ids[: other.prompt]): []}
    assert check_rows([batch_of(row)], tokenizer, expected) == 1
    with pytest.raises(PreflightError, match="the tokens with loss spell"):
        check_rows([batch_of(other)], tokenizer, expected)
