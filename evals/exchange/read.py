"""Verdicts from a team's own tool: whatever the file is, every verdict in it is read or its problem told."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evals.exchange.argilla import read_record
from evals.exchange.jsonl import read_line
from evals.exchange.label_studio import read_task
from evals.exchange.said import Imported, Problem
from evals.item import Item
from labels.errors import InputError
from labels.records import Verdict
from labels.task import Task

MOST_BYTES = 2**30
WANTED = (
    "wanted verdicts as JSON lines (an item with its `verdicts` a line), a Label Studio export (as JSON, not JSON-MIN), "
    "or a JSON list of Argilla records"
)


def read_verdicts(path: Path, items: Mapping[str, Item], task: type[Task]) -> Imported:
    """The verdicts in a file of JSON lines, of Label Studio or of Argilla; which of them it is, its content tells.

    `items`: what was asked, by the label's identity. Raises InputError where the file can't be read as any of the three.
    """
    text = _text(path)
    found: list[Verdict | Problem] = []
    places: list[str] = []
    recognised = False
    for where, record in _records(path, text):
        read = [record] if isinstance(record, Problem) else list(_read(where, record, items, task))
        recognised |= not any(
            isinstance(one, Problem) and one.kind == "unreadable" and one.where == where for one in read
        )
        found += read
        places += [where] * len(read)
    if found and not recognised:
        raise InputError(f"{path}: {WANTED}; got {text.strip()[:60]!r} …; export it again in one of these")
    return _sifted(found, places)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: wanted at most {MOST_BYTES / 2**30:.0f} GiB, got more; split the export")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {WANTED}; reading it failed: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: {WANTED}; got bytes that are no UTF-8 text; export it again, uncompressed") from None
    if not text.strip():
        raise InputError(f"{path}: {WANTED}; got an empty file; export it again")
    return text


def _records(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any] | Problem]]:
    """Each record or what is wrong with it, and where it stands: a JSON list's records, else lines of JSON."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: {WANTED}; got a JSON list that is broken: {error}; export it again") from None
        for number, one in enumerate(found, start=1):
            where = f"record {number}"
            yield where, one if isinstance(one, dict) else Problem("unreadable", where, "is no JSON object")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"line {number}"
            try:
                one = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield where, Problem("unreadable", where, f"is no JSON: {error}")
                continue
            yield where, one if isinstance(one, dict) else Problem("unreadable", where, "is no JSON object")


def _read(
    where: str, record: dict[str, Any], items: Mapping[str, Item], task: type[Task]
) -> Iterable[Verdict | Problem]:
    if "label" in record:
        return read_line(where, record, items, task)
    if "data" in record:
        return read_task(where, record, items, task)
    if "fields" in record or "_server_id" in record:
        return read_record(where, record, items, task)
    keys = ", ".join(list(record)[:6])
    return [Problem("unreadable", where, f"is neither an item, nor Label Studio's, nor Argilla's; it has {keys}")]


def _sifted(found: Iterable[Verdict | Problem], places: Iterable[str]) -> Imported:
    """The verdicts, one a reviewer and label and one an id: the later counts, and the other is a problem."""
    kept: dict[str, tuple[Verdict, str]] = {}
    by_reviewer: dict[tuple[str, str], str] = {}
    problems = []
    for one, where in zip(found, places, strict=True):
        if isinstance(one, Problem):
            problems.append(one)
            continue
        pair = (one.identity, one.reviewer)
        rivals = {name for name in (one.id, by_reviewer.get(pair)) if name in kept}
        for name in rivals:
            text = f"{one.reviewer} judged {one.query!r} at {kept[name][1]} too; the later verdict counts"
            problems.append(Problem("duplicate", where, text))
        if any(kept[name][0].created > one.created for name in rivals):
            continue
        for name in rivals:
            old, _ = kept.pop(name)
            by_reviewer.pop((old.identity, old.reviewer))
        kept[one.id] = (one, where)
        by_reviewer[pair] = one.id
    return Imported(tuple(one for one, _ in kept.values()), tuple(problems))
