"""What stands before every answer of the page: the host it may be asked by, and the headers it goes out with."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Answers only under the names in `hosts`.

    A page of a stranger whose own name was made to lead here (DNS rebinding) gets 421 and nothing else.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        """Wrap `app`."""
        self.app, self.hosts = app, frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on that comes by an allowed name."""
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else None
        if host is None or _name(host) in self.hosts:
            return await self.app(scope, receive, send)
        words = f"The review page is not served under the name {host!r}. Allowed: {', '.join(sorted(self.hosts))}.\n"
        return await PlainTextResponse(words, 421)(scope, receive, send)


def _name(host: str) -> str:
    """A Host header without its port; "[::1]:80" is an IPv6 address with one."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()
