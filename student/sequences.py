"""A dataset's rows as tokens, in the order they are trained in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labels.errors import PreflightError
from labels.prompt import Message, messages
from labels.task import Task
from student.preflight import ended
from student.recipe import Order
from student.rows import Replay, Row


@dataclass(frozen=True, slots=True)
class Tokens:
    """One row as tokens: `ids` of prompt and completion, the first `prompt` of them the prompt's; and both as text, the
    prompt as the server will render it.
    """

    ids: list[int]
    prompt: int
    text: str
    completion: str


def tokens_of(
    task: type[Task],
    rows: Sequence[Row],
    replay: Sequence[Replay],
    tokenizer: Any,  # noqa: ANN401 - any Hugging Face tokenizer
    max_length: int,
) -> tuple[list[Tokens], list[Tokens]]:
    """The tokens of `rows`, one for one, and of those of `replay` that are no longer than `max_length`.

    Raises PreflightError where a row of ours is longer, or where a prompt before its answer is not what the server will
    render alone: by the chat template, or because a token lies in both.
    """
    given = [(messages(task, row.query), row.value) for row in rows]
    given += [(general.prompt, general.completion) for general in replay]
    every = _tokens(given, tokenizer)
    ours, general_rows = every[: len(rows)], every[len(rows) :]
    long = [len(row.ids) for row in ours if len(row.ids) > max_length]
    if long:
        raise PreflightError(
            f"{len(long):,} of {len(ours):,} training rows would be truncated: the longest has {max(long):,} tokens, "
            f"allowed {max_length:,}; raise student.max_length"
        )
    return ours, [row for row in general_rows if len(row.ids) <= max_length]


def _tokens(given: Sequence[tuple[list[Message], str]], tokenizer: Any) -> list[Tokens]:  # noqa: ANN401
    if not given:
        return []
    whole = [[*prompt, {"role": "assistant", "content": completion}] for prompt, completion in given]
    heads = tokenizer.apply_chat_template([p for p, _ in given], tokenize=False, add_generation_prompt=True)
    texts = tokenizer.apply_chat_template(whole, tokenize=False)
    found = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
    rows = []
    for place, (head, text, ids) in enumerate(zip(heads, texts, found["input_ids"], strict=True)):
        start = found.char_to_token(place, len(head)) if text.startswith(head) else None
        if start is None or found.token_to_chars(place, start).start != len(head):
            raise PreflightError(
                f"a prompt before its answer is not what the server will render alone: {text!r} does not begin with "
                f"{head!r}, or a token lies in both prompt and answer"
            )
        rows.append(Tokens(ended(ids, tokenizer) or ids, start, head, given[place][1]))
    return rows


def prompts_alone(rows: Sequence[Tokens], tokenizer: Any) -> dict[tuple[int, ...], list[str]]:  # noqa: ANN401
    """The tokens of the rows' prompts, each made alone as the server makes them, and the completions that follow each."""
    alone: dict[tuple[int, ...], list[str]] = {}
    if not rows:
        return alone
    for row, ids in zip(
        rows, tokenizer([row.text for row in rows], add_special_tokens=False)["input_ids"], strict=True
    ):
        alone.setdefault(tuple(ids), []).append(row.completion)
    return alone


def in_order(rows: Sequence[Row], ours: Sequence[Tokens], general: Sequence[Tokens], order: Order) -> list[Tokens]:
    """An epoch: each row of `rows` (its tokens in `ours`) as often as it comes, the `general` ones among them.

    Repetitions and general rows are spread evenly; with "easy_to_hard" rows come by difficulty, the k-th time too.
    """
    places: Sequence[int] = range(len(rows))
    if order == "easy_to_hard":
        places = sorted(places, key=lambda place: rows[place].difficulty)
    most = max((row.times for row in rows), default=0)
    streams = [[ours[place] for place in places if rows[place].times > turn] for turn in range(most)]
    spread = [
        ((number + 0.5) / len(stream), row) for stream in (*streams, general) for number, row in enumerate(stream)
    ]
    return [row for _, row in sorted(spread, key=lambda each: each[0])]
