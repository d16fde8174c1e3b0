"""What a request says: where the page stands, what the form holds, and whether it comes from the page itself."""

import math
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import FormData

from labels.errors import StillhouseError

MOST_BODY = 512 * 1024
MOST_SECONDS = 600.0


class RefusedError(StillhouseError):
    """A form that does not come from the reviewer's own page."""


def root(request: Request) -> str:
    """The prefix that the page is mounted under, "" for none."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def wants_json(request: Request) -> bool:
    """Whether the page's script asks, or a browser that shows what it gets."""
    return "application/json" in request.headers.get("accept", "")


async def read_form(request: Request) -> FormData:
    """The form of a POST, kept for the page that offers to send it again.

    Raises RefusedError where another site's page sends it, or where it is larger than any answer.
    """
    _check_origin(request)
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > MOST_BODY:
        raise RefusedError(f"Not saved: wanted a form of at most {MOST_BODY // 1024} kB, got {length or 'no length'}.")
    request.state.form = form = await request.form()
    return form


def sent(request: Request) -> list[tuple[str, str]]:
    """What the form held, if one was read, without its CSRF token."""
    form: FormData | None = getattr(request.state, "form", None)
    return [(name, str(value)) for name, value in form.multi_items() if name != "csrf"] if form else []


def text(form: FormData, name: str) -> str:
    """A field of the form, "" where it is not there."""
    return str(form.get(name) or "")


def seconds(form: FormData) -> float:
    """How long the reviewer looked at the query: 0 where the page did not say, and never more than ten minutes."""
    try:
        measured = float(text(form, "seconds") or 0)
    except ValueError:
        return 0.0
    return min(max(measured, 0.0), MOST_SECONDS) if math.isfinite(measured) else 0.0


def _check_origin(request: Request) -> None:
    """Every browser of today says one of the two; the CSRF token is asked for besides."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site:  # the browser itself says so, and it knows the page's own name, which a server behind a proxy may not
        foreign = site != "same-origin"
    else:
        foreign = bool(origin) and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
    if foreign:
        raise RefusedError(f"Not saved: this form came from {origin or 'another site'}, not from the review page.")
