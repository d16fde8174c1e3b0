"""Replay: general instruction rows, mixed in so that the student forgets less of what its base could do."""

import heapq
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from labels.errors import InputError
from labels.normalise import normalise
from labels.prompt import Message
from student.rows import Replay
from student.selection import chance, measuring

LONGEST = 4000
"""Characters of a whole conversation, about 1,000 tokens: longer ones are left out."""
ROLES = ("system", "user", "assistant")
KINDS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
WANTED = "wanted messages (the last one the assistant's), or prompt and completion"
SPECIAL = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>|\[/?INST\]|<(start|end)_of_turn>")
"""What a chat template may hold for itself; in a text it would end a turn."""
SCHEMA = pa.schema(
    [
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("completion", pa.string()),
    ]
)


@dataclass(frozen=True)
class Replayed:
    """The rows drawn, and of the source how many were `read`, `unusable`, `too_long`, and drawn but `near_gold`."""

    rows: list[Replay] = field(default_factory=list)
    read: int = 0
    unusable: int = 0
    too_long: int = 0
    near_gold: int = 0


def read_replay(source: str, count: int, seed: int, gold: Collection[str] = ()) -> Replayed:
    """Draw `count` rows of `source` by their hash and `seed`; fewer where it holds fewer, or some are near `gold`.

    `source` is a file (JSON lines, Parquet or CSV, also gzipped), a folder of such, or the name of a dataset whose
    `train` split is taken; its columns are `messages`, or `prompt` and `completion`, texts or lists of messages.
    Conversations longer than LONGEST and rows that are no conversation are counted, not drawn. Raises InputError where
    the source can't be read, lacks the columns or holds no usable row.
    """
    found: Counter[str] = Counter()
    first = ""

    def usable() -> Iterator[tuple[float, str, Replay]]:
        nonlocal first
        for record in _records(source):
            found["read"] += 1
            try:
                replay = _replay(record)
            except InputError as error:
                found["unusable"] += 1
                first = first or f"row {found['read']}: {error}"
                continue
            if _characters(replay) > LONGEST:
                found["too_long"] += 1
                continue
            text = json.dumps(asdict(replay))
            yield chance(seed, text), text, replay

    drawn = [replay for _, _, replay in heapq.nsmallest(count, usable(), key=lambda one: one[:2])]
    if not drawn and count:
        raise InputError(
            f"replay {source}: none of its {found['read']:,} rows can be used ({found['too_long']:,} longer than "
            f"{LONGEST:,} characters{'; ' + first if first else ''}); {WANTED}"
        )
    clean = [replay for replay, near in zip(drawn, _near_gold(drawn, gold), strict=True) if not near]
    return Replayed(clean, found["read"], found["unusable"], found["too_long"], len(drawn) - len(clean))


def replay_table(rows: Collection[Replay]) -> pa.Table:
    """The rows as replay.parquet holds them."""
    return pa.Table.from_pylist([asdict(row) for row in rows], SCHEMA)


def _records(source: str) -> Iterator[dict[str, Any]]:
    import datasets

    path, options = Path(source), dict[str, Any]()
    name = source
    if path.is_file():
        kind = KINDS.get(path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix)
        if not kind:
            raise InputError(f"replay {source}: wanted a file ending in {', '.join(KINDS)} (or these and .gz)")
        name, options = kind, {"data_files": str(path)}
        options |= {"keep_default_na": False} if kind == "csv" else {}
    elif not path.exists() and (path.suffix in (*KINDS, ".gz") or path.is_absolute()):
        raise InputError(f"replay {source}: there is no such file; check the path")
    try:
        # What lies here is read as it goes; what comes from elsewhere stays in the library's cache.
        for place, record in enumerate(datasets.load_dataset(name, split="train", streaming=path.exists(), **options)):
            if not place and not ("messages" in record or {"prompt", "completion"} <= record.keys()):
                raise InputError(f"replay {source} has the columns {', '.join(record)}; {WANTED}")
            yield record
    except InputError:
        raise
    except Exception as error:  # the library raises whatever its readers do, StopIteration for an empty file
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"replay {source} can't be read: {reason[0][:300]}") from error


def _replay(record: dict[str, Any]) -> Replay:
    """One row; raises InputError where it is no conversation that an assistant's answer ends."""
    said = record.get("messages")
    if said is None:
        said = [*_said(record.get("prompt"), "user"), *_said(record.get("completion"), "assistant")]
    *prompt, last = [_message(one) for one in _said(said, "user")] or [{"role": "none"}]
    if last["role"] != "assistant" or not any(one["role"] == "user" for one in prompt):
        raise InputError(
            "wanted a user's message and an assistant's last, got " + " ".join(m["role"] for m in [*prompt, last])
        )
    return Replay(prompt, last["content"])


def _said(given: object, role: str) -> list[Any]:
    """Messages given as a list, as the JSON of one, or as the text of one message."""
    if isinstance(given, str):
        try:
            parsed = json.loads(given)
        except (ValueError, RecursionError):
            parsed = None
        return parsed if _is_messages(parsed) else [{"role": role, "content": given}]
    if isinstance(given, int | float):  # a CSV whose every answer is a number
        return [{"role": role, "content": str(given)}]
    return given if isinstance(given, list) else []


def _is_messages(parsed: object) -> bool:
    return isinstance(parsed, list) and bool(parsed) and all(isinstance(one, dict) and "role" in one for one in parsed)


def _message(given: object) -> Message:
    role, content = (given.get("role"), given.get("content")) if isinstance(given, dict) else (None, None)
    if role not in ROLES or not isinstance(content, str) or not content.strip():
        raise InputError(f"wanted messages of {', '.join(ROLES)} with a text each, got {str(given)[:80]!r}")
    if SPECIAL.search(content):
        raise InputError(f"a text spells a chat template's token: {SPECIAL.findall(content)[:1]}")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise InputError("a text holds half a surrogate pair") from None
    return {"role": role, "content": content.strip()}  # a template's own line ends stay tokens of their own


def _characters(replay: Replay) -> int:
    return sum(len(message["content"]) for message in replay.prompt) + len(replay.completion)


def _near_gold(rows: Collection[Replay], gold: Collection[str]) -> list[bool]:
    """Whether any message of a user is equal or near to a query that measures."""
    asked = [
        (at, normalise(one["content"])) for at, row in enumerate(rows) for one in row.prompt if one["role"] == "user"
    ]
    measures = measuring([text for _, text in asked], gold)
    near = {at for (at, _), why in zip(asked, measures, strict=True) if why}
    return [at in near for at in range(len(rows))]
