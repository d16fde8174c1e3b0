"""Is an answer over HTTP what it must be? Checked against what `benchmarks.told` publishes, whatever else goes on."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from benchmarks.told import student_of

SOURCES = ("cache", "student", "tail-cache", "none", "error")
PROBLEMS = ("", "wrong", "mixed", "went back", "failed")
"""What can be amiss: the value is not its query's or not its release's; a batch is of several releases; the release is older
than the one before on the connection; there is no answer (a broken connection, a status other than 200)."""


class Judged(NamedTuple):
    """Source (of SOURCES), release's number (-1 for none), milliseconds by its own account, problem (of PROBLEMS)."""

    source: int
    release: int
    served_ms: float
    problem: int


NOTHING = Judged(SOURCES.index("error"), -1, 0.0, PROBLEMS.index("failed"))


def judge(queries: Sequence[str], batch: bool, raw: bytes, latest: int, releases: int) -> Judged:
    """What an HTTP answer to `queries` is worth; of a batch the first one's source, release and time are given.

    `latest` is the last release that its connection saw, `releases` the last that may be served at all. What is amiss is
    also told on stderr.
    """
    try:
        if not raw.startswith(b"HTTP/1.1 200 "):
            raise ValueError(raw[:300])
        told = orjson.loads(raw[raw.index(b"\r\n\r\n") + 4 :])
        answers = told["answers"] if batch else [told]
        found = [_judge(query, one, releases) for query, one in zip(queries, answers, strict=True)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        sys.stderr.write(f"{queries[0]}: no answer: {error!r}\n"[:500])
        return NOTHING
    first, problem = found[0], max(one.problem for one in found)
    if not problem and len({one.release for one in found}) > 1:
        problem = PROBLEMS.index("mixed")
    if not problem and 0 <= first.release < latest:
        problem = PROBLEMS.index("went back")
    if problem:
        sys.stderr.write(f"{queries[0]}: {PROBLEMS[problem]}: {raw[-500:]!r}\n")
    return first._replace(problem=problem)


def _judge(query: str, answer: dict[str, Any], releases: int) -> Judged:
    source, value, name = answer["source"], answer["value"], answer["release"]
    release = int(name.removeprefix("r")) if name else -1
    by = name if source == "cache" else student_of(release)
    right = value is None if source == "none" else value == {"of": query, "by": by}
    right = right and answer["query"] == query and release <= releases
    return Judged(SOURCES.index(source), release, answer["milliseconds"], 0 if right else PROBLEMS.index("wrong"))
