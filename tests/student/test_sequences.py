import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.errors import PreflightError
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from student.base import load_base
from student.preflight import IGNORED
from student.rows import Replay, Row
from student.sequences import Tokens, in_order, tokens_of
from tests.student.training import recipe, shop_rows

GENERAL = Replay([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a bird."}], "a wren")
LONG = Replay([{"role": "user", "content": "Tell me all of it. " * 200}], "no")


@pytest.fixture(scope="module")
def base():
    return load_base(recipe())


def test_the_tokens_and_their_loss_are_those_that_trl_would_make(base, tmp_path):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = base
    rows = shop_rows(12)
    ours, general = tokens_of(SemanticRoles, rows, [GENERAL], tokenizer, 512)
    given = [(messages(SemanticRoles, row.query), row.value) for row in rows] + [(GENERAL.prompt, GENERAL.completion)]
    data = Dataset.from_list(
        [{"prompt": prompt, "completion": [{"role": "assistant", "content": value}]} for prompt, value in given]
    )
    config = SFTConfig(str(tmp_path), bf16=False, report_to="none", use_cpu=True)
    theirs = SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer).train_dataset
    every = [*ours, *general]
    assert [row.ids for row in every] == theirs["input_ids"][:]
    assert [[IGNORED] * row.prompt + row.ids[row.prompt :] for row in every] == theirs["labels"][:]


def test_a_general_row_that_is_too_long_is_left_out_and_one_of_ours_is_refused(base):
    _, tokenizer = base
    rows = shop_rows(4)
    ours, general = tokens_of(SemanticRoles, rows, [LONG, GENERAL, LONG], tokenizer, 100)
    assert (len(ours), [row.completion for row in general]) == (4, ["a wren"])
    with pytest.raises(PreflightError, match=r"of 4 training rows would be truncated: the longest has \d+ tokens"):
        tokens_of(SemanticRoles, rows, [GENERAL], tokenizer, 45)


def test_a_template_that_writes_a_prompt_otherwise_before_an_answer_is_refused(base):
    _, tokenizer = load_base(recipe())
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}!{% endif %}"
    )
    with pytest.raises(PreflightError, match="a prompt before its answer is not what the server will render alone"):
        tokens_of(SemanticRoles, shop_rows(1), [], tokenizer, 512)


def test_what_a_template_writes_after_the_end_of_a_turn_is_not_trained():
    _, tokenizer = load_base(recipe())
    rows = shop_rows(3)
    plain, _ = tokens_of(SemanticRoles, rows, [], tokenizer, 512)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|eot_id|>{%", "<|eot_id|>\n{%")  # as ChatML's do
    with_line_ends, _ = tokens_of(SemanticRoles, rows, [], tokenizer, 512)
    for one, other in zip(plain, with_line_ends, strict=True):
        assert other.ids[other.prompt :] == one.ids[one.prompt :]
        assert other.prompt == one.prompt + 2  # the line ends after the system's and the user's turn


ROWS = st.lists(
    st.builds(Row, st.uuids().map(str), st.just("v"), difficulty=st.floats(0, 1), times=st.integers(1, 3)), max_size=20
)


@given(ROWS, st.integers(0, 10), st.sampled_from(["shuffled", "easy_to_hard"]))
def test_an_epoch_has_each_row_as_often_as_it_comes_and_each_general_one_once(rows, general, order):
    ours = [Tokens([place], 0, "", row.query) for place, row in enumerate(rows)]
    others = [Tokens([], 0, "", str(number)) for number in range(general)]
    epoch = in_order(rows, ours, others, order)
    names = [row.completion for row in epoch]
    assert sorted(names) == sorted([row.query for row in rows for _ in range(row.times)] + [*map(str, range(general))])


def test_repetitions_and_general_rows_are_spread_over_an_easy_to_hard_epoch():
    rows = [Row(f"q{place}", "v", difficulty=1 - place / 100, times=1 + (place % 4 == 0)) for place in range(100)]
    ours = [Tokens([place], 0, "", row.query) for place, row in enumerate(rows)]
    epoch = in_order(rows, ours, [Tokens([], 0, "", "general")] * 25, "easy_to_hard")
    for quarter in range(4):
        some = [row.completion for row in epoch[quarter * 37 : quarter * 37 + 37]]
        assert 5 <= some.count("general") <= 8
        hardness = [rows[int(name[1:])].difficulty for name in some if name != "general"]
        assert quarter / 4 - 0.06 <= min(hardness)
        assert max(hardness) <= (quarter + 1) / 4 + 0.06


def test_a_token_that_lies_in_prompt_and_answer_is_refused():
    _, tokenizer = load_base(recipe())
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"  # nothing between the two
    row = Replay([{"role": "user", "content": '{"prod'}], 'uct":"')  # '{"product":"' is one token
    with pytest.raises(PreflightError, match="or a token lies in both prompt and answer"):
        tokens_of(SemanticRoles, [], [row], tokenizer, 512)
