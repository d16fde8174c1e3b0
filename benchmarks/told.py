"""Answers that tell on themselves: each says which query it is for and which release or student gave it.

    python -m benchmarks.told PORT SECONDS

The task of the benchmarks that switch releases and break things, its entries, and a stand-in for the vLLM servers of all its
students on one port: it answers any query at http://127.0.0.1:PORT/STUDENT after so many seconds; GET /slow/0.5 changes them.
"""

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, ClassVar

from pydantic import Field

from cache.layout import bucket_count, entry
from labels.normalise import NORMALISATION_VERSION
from labels.records import Release
from labels.task import Task

Message = MutableMapping[str, Any]
ASKED = re.compile(r"<query>(.*)</query>")


class Told(Task):
    """Say what was asked, and who says so."""

    name: ClassVar[str] = "told"
    of: str = Field(description="the query")
    by: str = Field(description="the release or the student that answers")


def head_query(place: int) -> str:
    """A query that every generation has an entry for."""
    return f"head {place}"


def tail_query(place: int) -> str:
    """A query that no generation has an entry for."""
    return f"tail {place}"


def student_of(number: int) -> str:
    """The student of release `number`: two take turns, each for two releases."""
    return f"student-{number // 2 % 2}"


def release_of(number: int, entries: int) -> Release:
    """Release `number`, with a generation of its own."""
    return Release(
        release=f"r{number}",
        generation=f"g{number}",
        student=student_of(number),
        task=Told.name,
        night=f"night {number}",
        task_version=Told.version(),
        entries=entries,
        buckets=bucket_count(entries),
        normalisation=NORMALISATION_VERSION,
    )


def entries_of(number: int, entries: int) -> Iterator[tuple[str, str]]:
    """The entries of release `number`."""
    for place in range(entries):
        query = head_query(place)
        yield query, entry({"of": query, "by": f"r{number}"}, 0.9, "teacher")


class Students:
    """An ASGI app: the stand-in for the students' servers."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """What vLLM would say to a chat; to all else that it serves that student."""
        _, student, *path = scope["path"].split("/")
        said: dict[str, Any] = {"data": [{"id": student}]}
        if student == "slow":
            self.seconds = float(path[0])
        elif scope["method"] == "POST":
            asked = await _body(receive)
            await asyncio.sleep(self.seconds)
            said = _said(student, asked)
        body = json.dumps(said).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _said(student: str, asked: dict[str, Any]) -> dict[str, Any]:
    content = asked["messages"][-1]["content"]
    query = (ASKED.findall(content) or [content])[-1]
    text = Told(of=query, by=student).to_json()
    tokens = [{"token": char, "logprob": 0.0} for char in text]
    return {"choices": [{"message": {"content": text}, "logprobs": {"content": tokens}, "finish_reason": "stop"}]}


async def _body(receive: Callable[[], Awaitable[Message]]) -> dict[str, Any]:
    body, more = b"", True
    while more:
        part = await receive()
        body, more = body + part.get("body", b""), part.get("more_body", False)
    asked: dict[str, Any] = json.loads(body)
    return asked


if __name__ == "__main__":
    import uvicorn

    app, port = Students(float(sys.argv[2])), int(sys.argv[1])
    uvicorn.run(app, port=port, lifespan="off", log_level="warning", access_log=False, ws="none")
