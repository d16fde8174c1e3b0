"""The pre-flight: on real batches, exactly the label's tokens carry loss, as the server will render them."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from labels.errors import PreflightError
from labels.prompt import messages
from labels.task import Task

IGNORED = -100

Expected = Mapping[tuple[int, ...], Collection[str]]
"""The completions that may follow a prompt's tokens."""


def check_batches(
    batches: Iterable[Mapping[str, Any]],
    tokenizer: Any,  # noqa: ANN401 - any Hugging Face tokenizer
    task: type[Task],
    rows: Mapping[str, str],
) -> int:
    """Compare every row of `batches` (input_ids, labels, attention_mask) with the dataset and the chat template.

    `rows` maps a query to its answer. Returns how many rows were checked; raises PreflightError on the first that is
    wrong, showing its tokens.
    """
    expected = {}
    for query, value in rows.items():
        prompt = tokenizer.apply_chat_template(
            messages(task, query), tokenize=True, add_generation_prompt=True, return_dict=False
        )
        expected[tuple(prompt)] = [value]
    return check_rows(batches, tokenizer, expected)


def check_rows(batches: Iterable[Mapping[str, Any]], tokenizer: Any, expected: Expected) -> int:  # noqa: ANN401
    """As check_batches, of padded batches and of packed ones (input_ids, labels, position_ids from 0 for each row)."""
    checked = 0
    for batch in batches:
        for ids, labels, padding in rows_of(batch):
            _check_row(ids, labels, padding, tokenizer, expected)
            checked += 1
    if not checked:
        raise PreflightError("the pre-flight saw no training batch at all; wanted at least one")
    return checked


def rows_of(batch: Mapping[str, Any]) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Tokens, labels, and labels of the padding, of each row of a padded or packed batch."""
    return _packed_rows(batch) if "position_ids" in batch else _padded_rows(batch)


def _padded_rows(batch: Mapping[str, Any]) -> Iterator[tuple[list[int], list[int], list[int]]]:
    columns = (batch[name].tolist() for name in ("input_ids", "labels", "attention_mask"))
    for ids, labels, mask in zip(*columns, strict=True):
        real = sum(mask)
        yield ids[:real], labels[:real], labels[real:]


def _packed_rows(batch: Mapping[str, Any]) -> Iterator[tuple[list[int], list[int], list[int]]]:
    for ids, labels, positions in zip(
        *(batch[name].tolist() for name in ("input_ids", "labels", "position_ids")), strict=True
    ):
        starts = [place for place, position in enumerate(positions) if position == 0]
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            if positions[start:end] != list(range(end - start)):
                raise PreflightError(
                    f"a packed row's positions are {positions[start:end]}, wanted 0 to {end - start - 1}"
                )
            yield ids[start:end], labels[start:end], []


def _check_row(
    ids: list[int],
    labels: list[int],
    padding: list[int],
    tokenizer: Any,  # noqa: ANN401
    expected: Expected,
) -> None:
    start = next((place for place, label in enumerate(labels) if label != IGNORED), None)
    if start is None:
        raise PreflightError(f"a training row carries no loss at all: {_show(ids, labels, tokenizer)}")
    if labels[start:] != ids[start:] or any(label != IGNORED for label in padding):
        raise PreflightError(f"the loss mask has holes or covers padding: {_show(ids, labels, tokenizer)}")
    wanted = expected.get(tuple(ids[:start]))
    if wanted is None:
        raise PreflightError(
            "a training prompt is not what the server will render (chat template, special tokens or truncation): "
            + _show(ids, labels, tokenizer)
        )
    if ended(ids, tokenizer) is None:
        raise PreflightError(f"a training row was truncated or has no end token: {_show(ids, labels, tokenizer)}")
    answer = tokenizer.decode(ids[start:], skip_special_tokens=True)
    if _plain(answer) not in {_plain(value) for value in wanted}:
        raise PreflightError(
            f"the tokens with loss spell {answer!r}, wanted {' or '.join(map(repr, wanted))}: "
            + _show(ids, labels, tokenizer)
        )


def ended(ids: list[int], tokenizer: Any) -> list[int] | None:  # noqa: ANN401
    """The tokens up to the one that ends the turn, without the white space that a template may write after it (ChatML does),
    which no server asks for; None where the turn has no end.

    It ends with EOS, or with Llama 3's end of turn, which a base tokenizer does not call EOS.
    """
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|eot_id|>")} - {None, tokenizer.unk_token_id}
    last = next((place for place in reversed(range(len(ids))) if ids[place] in ends), None)
    if last is None or tokenizer.decode(ids[last + 1 :]).strip():
        return None
    return ids[: last + 1]


def _plain(text: str) -> str:
    return "".join(text.split())  # a byte-level tokenizer may put a space before a value


def _show(ids: list[int], labels: list[int], tokenizer: Any) -> str:  # noqa: ANN401
    tokens = tokenizer.convert_ids_to_tokens(ids)
    return " ".join(f"[{t}]" if label != IGNORED else t for t, label in zip(tokens, labels, strict=True))
