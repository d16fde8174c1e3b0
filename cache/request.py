"""What a request asks: its query string, its body, its id. Whatever is wrong with it is an HTTPException that says so."""

import asyncio
import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive

from labels.normalise import NORMALISATION_VERSION

MAX_QUERY_STRING = 8 * 1024  # bytes; the longest query takes 2.4 kB with every byte of it escaped
MAX_BODY = 1024 * 1024
MAX_BATCH = 1_000
BODY_SECONDS = 10.0
Headers = Iterable[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class Batch(BaseModel):
    """The body of a POST."""

    model_config = ConfigDict(extra="forbid", strict=True)

    queries: list[str] = Field(min_length=1, max_length=MAX_BATCH)
    task: str | None = None
    normalisation: int | None = None


def header(headers: Headers, name: bytes) -> bytes:
    """The first header of this name (in lower case), b"" for none."""
    return next((value for key, value in headers if key == name), b"")


def sane_id(sent: bytes) -> bytes | None:
    """The id a caller sent, None where it can't go into a log and a header as it is."""
    return sent if _REQUEST_ID.fullmatch(sent) else None


def parse_query_string(raw: bytes) -> dict[str, str]:
    """The parameters of a GET. 400 for what is no UTF-8, for NUL and for one given twice, 414 for what is too long."""
    if len(raw) > MAX_QUERY_STRING:
        raise HTTPException(
            414, f"the query string is too long: wanted at most {MAX_QUERY_STRING:,} bytes, got {len(raw):,}"
        )
    found: dict[str, str] = {}
    for part in raw.split(b"&"):
        name, _, value = part.partition(b"=")
        if not name:
            continue
        key, text = _text(name), _text(value)
        if key in found and key in ("q", "task", "normalisation"):
            raise HTTPException(400, f"wanted {key} once, got it again; ask for several queries by POST")
        found[key] = text
    return found


def parse_batch(body: bytes, content_type: bytes) -> Batch:
    """The body of a POST. 415 for another type than JSON, 400 for what is not a batch as described."""
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise HTTPException(415, "wanted content-type: application/json; send the queries as JSON")
    try:
        batch = Batch.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = problem["loc"][:2]  # of a field that is none of ours not even the name: it may be a query
        where = ".".join(str(part) for part in place) if place[:1] and place[0] in Batch.model_fields else "the body"
        wanted = f'wanted {{"queries": [up to {MAX_BATCH:,} texts]}}, with "task" and "normalisation" if you like'
        raise HTTPException(400, f"{wanted}; got {where} wrong: {problem['msg']}") from None
    for number, query in enumerate(batch.queries):
        if "\0" in query:
            raise HTTPException(400, f"wanted text, got a NUL character in queries.{number}; leave it out")
    return batch


def check_versions(task: str | None, normalisation: str | int | None, served: str) -> None:
    """400 where a caller wants another task than is `served`, or another normalisation than ours."""
    if task is not None and task != served:
        raise HTTPException(400, f"wanted task {served}, which is served here, got {task[:100]!r}")
    if normalisation is not None and str(normalisation) != str(NORMALISATION_VERSION):
        raise HTTPException(
            400,
            f"queries are normalised by version {NORMALISATION_VERSION} here, got {str(normalisation)[:20]!r};"
            " send queries as they were typed, without normalisation",
        )


async def read_body(receive: Receive, headers: Headers, seconds: float = BODY_SECONDS) -> bytes:
    """The body, of at most MAX_BODY bytes (else 413) that come within so many seconds (else 408)."""
    declared = header(headers, b"content-length")
    if declared.isdigit() and int(declared) > MAX_BODY:
        raise _too_large()
    parts, size, more = [], 0, True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HTTPException(400, "the caller left before the body's end")
                parts.append(message.get("body", b""))
                more, size = message.get("more_body", False), size + len(parts[-1])
                if size > MAX_BODY:
                    raise _too_large()
    except TimeoutError:
        raise HTTPException(408, f"wanted the body within {seconds:g} s", {"Connection": "close"}) from None
    return b"".join(parts)


def _too_large() -> HTTPException:
    """The rest of the body is not read: the connection ends."""
    return HTTPException(
        413, f"wanted a body of at most {MAX_BODY:,} bytes; send fewer queries at once", {"Connection": "close"}
    )


def _text(raw: bytes) -> str:
    raw = raw.replace(b"+", b" ")
    try:
        text = (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
    except UnicodeDecodeError:
        raise HTTPException(400, "wanted UTF-8, percent-encoded, got other bytes; encode the query as UTF-8") from None
    if "\0" in text:
        raise HTTPException(400, "wanted text, got a NUL character; leave it out")
    return text
