"""What a model says without a server, token by token: what its merged form, and then the served one, is held against."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labels.errors import ParityError
from labels.files import read_json, write_json
from labels.prompt import messages
from labels.task import Task

REFERENCE = "reference.json"
BATCH = 16


def prompts_of(task: type[Task], tokenizer: Any, queries: Sequence[str]) -> list[list[int]]:  # noqa: ANN401
    """The token ids of each query's prompt, as the server renders it."""
    return [
        tokenizer.apply_chat_template(messages(task, query), add_generation_prompt=True, return_dict=False)
        for query in queries
    ]


def greedy(model: Any, prompts: Sequence[list[int]], padding: int, max_tokens: int) -> list[list[int]]:  # noqa: ANN401
    """The token the model thinks likeliest, again and again: an answer's ids for each prompt, its end token included."""
    import torch

    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    answers = []
    for start in range(0, len(prompts), BATCH):
        some = prompts[start : start + BATCH]
        width = max(map(len, some))
        ids = torch.tensor([[padding] * (width - len(one)) + one for one in some], device=model.device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in some], device=model.device)
        said = model.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=max_tokens, pad_token_id=padding
        )
        for answer in said[:, width:].tolist():
            end = next((place for place, token in enumerate(answer) if token in ends), len(answer))
            answers.append(answer[: end + 1])
    return answers


def logits(model: Any, sequences: Sequence[list[int]], padding: int) -> Iterator[Any]:  # noqa: ANN401
    """The logits of each sequence, a position each: what the model thinks of the token after it."""
    import torch

    for start in range(0, len(sequences), BATCH):
        some = sequences[start : start + BATCH]
        width = max(map(len, some))
        ids = torch.tensor([one + [padding] * (width - len(one)) for one in some], device=model.device)
        mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in some], device=model.device)
        with torch.inference_mode():
            found = model(input_ids=ids, attention_mask=mask).logits.float().cpu()
        for place, one in enumerate(some):
            yield found[place, : len(one)]


def write_reference(
    folder: Path,
    queries: Sequence[str],
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    spoken: Sequence[list[int]],
    found: Sequence[Any],
) -> None:
    """Keep what the saved model says, beside it.

    `spoken` are its own greedy answers; `found` its `logits` of each prompt with the answer of `answers` after it. Kept of
    these are each token's log-probability (nats, from the second token on) and the likeliest token in its place.
    """
    rows = []
    for query, prompt, answer, said, scores in zip(queries, prompts, answers, spoken, found, strict=True):
        ids = [*prompt, *answer]
        chances = scores.log_softmax(-1)[:-1]
        rows.append(
            {
                "query": query,
                "prompt": prompt,
                "answer": answer,
                "greedy": said,
                "logprobs": [round(float(row[token]), 6) for row, token in zip(chances, ids[1:], strict=True)],
                "likeliest": scores[:-1].argmax(-1).tolist(),
            }
        )
    write_json(folder / REFERENCE, {"rows": rows})


def read_reference(folder: Path) -> list[dict[str, Any]]:
    """What `write_reference` kept. Raises ParityError where there is none."""
    found = read_json(folder / REFERENCE)
    if not found:
        raise ParityError(
            f"{folder} has no {REFERENCE} to compare the server with; remove the folder to merge it again"
        )
    rows: list[dict[str, Any]] = found["rows"]
    return rows
