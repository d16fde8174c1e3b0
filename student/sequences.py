"""A dataset's rows as tokens, in the order they are trained in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from labels.errors import PreflightError
from labels.prompt import Message, messages
from labels.task import Task
from student.recipe import Order
from student.rows import Replay, Row


@dataclass(frozen=True, slots=True)
class Tokens:
    """One row as tokens: `ids` of prompt and completion, of which the first `prompt` are as the server renders them."""

    ids: list[int]
    prompt: int
    completion: str


def tokens_of(
    task: type[Task],
    rows: Sequence[Row],
    replay: Sequence[Replay],
    tokenizer: Any,  # noqa: ANN401 - any Hugging Face tokenizer
    max_length: int,
) -> tuple[list[Tokens], list[Tokens]]:
    """The tokens of `rows`, one for one, and of those of `replay` that are no longer than `max_length`.

    Raises PreflightError where a row of ours is longer, or where a chat template renders a prompt before its answer
    otherwise than alone, as the server is going to.
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


def _tokens(given: Iterable[tuple[list[Message], str]], tokenizer: Any) -> list[Tokens]:  # noqa: ANN401
    prompts = [prompt for prompt, _ in given]
    completions = [completion for _, completion in given]
    whole = [
        [*prompt, {"role": "assistant", "content": completion}]
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    heads = _ids(tokenizer, prompts, add_generation_prompt=True)
    rows = []
    for head, ids, completion in zip(heads, _ids(tokenizer, whole), completions, strict=True):
        if ids[: len(head)] != head:
            raise PreflightError(
                "the chat template renders a prompt before its answer otherwise than the server will, alone: "
                f"{tokenizer.decode(ids)!r} does not begin with {tokenizer.decode(head)!r}"
            )
        rows.append(Tokens(ids, len(head), completion))
    return rows


def _ids(tokenizer: Any, conversations: Sequence[list[Message]], **how: bool) -> list[list[int]]:  # noqa: ANN401
    if not conversations:
        return []
    texts = tokenizer.apply_chat_template(conversations, tokenize=False, **how)
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return found


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
