"""Serving an ASGI app over HTTP, in this process or in several, until Ctrl-C or SIGTERM.

A server is told to leave by a signal: it then says so to the app (whose /readyz turns to 503), takes what still comes for a
tenth of the time it has for draining, and stops listening; what is in flight by then has the rest.
"""

import asyncio
import errno
import gc
import json
import math
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType

import uvicorn
import uvloop
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cache.http import HEADERS, LOOKUP, LookupApp
from cache.log import json_lines
from cache.shared import Shared
from labels.errors import BusyError, ServiceError, StillhouseError
from labels.signals import sigterm_as_ctrl_c

HOST, PORT = "127.0.0.1", 8017
DRAIN_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 75  # longer than the 60 of common balancers: who closes an idle connection first should not be us
HEAD_SECONDS = 10.0  # from the first byte of a request's head to its last
MAX_HEAD = 256 * 1024  # bytes of a request before its body
MAX_URL = 2**16 - 1  # bytes that httptools reads
ENDINGS = (signal.SIGINT, signal.SIGTERM)

MakeApp = Callable[[], Starlette]


def run(
    make_app: MakeApp, host: str = HOST, port: int = PORT, workers: int = 1, drain_seconds: float = DRAIN_SECONDS
) -> None:
    """Serve until Ctrl-C or SIGTERM, then drain and return. Call it in the main thread.

    `make_app` is called in each of the `workers` processes, once it is there; the app's lifespan too. A process that dies
    is started anew. Raises BusyError where the port is taken and ServiceError where it can't be listened on, as a rule before
    any app is made; and whatever making or starting the app raises (with several processes: as a ServiceError).
    """
    with suppress(KeyboardInterrupt), sigterm_as_ctrl_c(), json_lines(), closing(_bind(host, port)) as bound:
        if workers == 1:
            work(make_app, bound, Shared(), 0, drain_seconds)
        else:
            from cache.supervise import supervise

            supervise(make_app, bound, workers, drain_seconds)


def work(
    make_app: MakeApp,
    bound: socket.socket,
    shared: Shared,
    number: int,
    drain_seconds: float,
    ready: Callable[[], None] = lambda: None,
    parent: int | None = None,
) -> None:
    """Be one server of the app, the `number`th, in this process, until told to leave.

    `ready` is called once it answers. It also leaves when `parent`, the end of a pipe, is closed at the other end.
    """

    async def serve() -> None:
        app = make_app()
        if isinstance(app, LookupApp):
            app.share(shared, number)
        # The app's start and end stand outside uvicorn, which would print a traceback for a start that fails.
        async with app.router.lifespan_context(app):
            gc.collect()
            gc.freeze()  # what is there now stays: later collections need not walk through it, which took 90 ms at times
            await _Server(app, drain_seconds, ready, parent).serve([bound])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with an end to how long a request's head may get and may take, and with our words for what it can't read.

    uvicorn would wait for a request for ever: connections that a caller lost sight of would eat up all there may be.
    """

    url = b""
    _head = 0  # bytes of a head that has not ended yet
    _head_due = 0.0  # when it has to, by the loop's clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._close_at(self.loop.time() + KEEP_ALIVE_SECONDS)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # closes at no time, for now
        if self.scope is not None and "path" in self.scope:
            self._head = 0
        elif (head := self._head + len(data)) <= MAX_HEAD:
            self._head_due = self._head_due if self._head else self.loop.time() + HEAD_SECONDS
            self._head = head
            self._close_at(self._head_due)
        elif not self.transport.is_closing():
            self.send_400_response("")

    def _close_at(self, when: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_at(when, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, and end the connection."""
        long = self._head > 0 or len(self.url) > MAX_URL
        words = (
            f"the request's head is too long; {LOOKUP} takes queries by POST too"
            if long
            else "this is no HTTP request: percent-encode in the URL what is not ASCII"
        )
        body = json.dumps({"error": words}).encode()
        head = ["HTTP/1.1 400 Bad Request", "content-type: application/json", f"content-length: {len(body)}"]
        head += [f"{name.lower()}: {value}" for name, value in HEADERS.items()]
        self.transport.write("\r\n".join([*head, "connection: close", "", ""]).encode() + body)
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's, which drains as this module says."""

    def __init__(self, app: Starlette, drain_seconds: float, ready: Callable[[], None], parent: int | None) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            loop="uvloop",
            http=_Protocol,
            ws="none",
            log_config=None,
            access_log=False,  # no log may hold a query's text
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=math.ceil(drain_seconds * 0.9),
        )
        super().__init__(config)
        self._app, self._notice, self._ready, self._parent = app, drain_seconds / 10, ready, parent
        self._leaves: float | None = None  # when it stops listening, by time.monotonic

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to leave; at a second Ctrl-C wait for nobody."""
        if self._leaves is None:
            self._leave(self._notice if sig == signal.SIGTERM else 0)
        elif sig == signal.SIGINT:
            self.should_exit = self.force_exit = True

    def _leave(self, notice: float) -> None:
        if self._leaves is None:
            self._leaves = time.monotonic() + notice
            if isinstance(self._app, LookupApp):
                self._app.drain()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for bound in sockets or []:
            try:
                bound.listen(
                    self.config.backlog
                )  # uvloop would not say that another got there while the app was starting
            except OSError as error:
                host, port = bound.getsockname()[:2]
                raise _refused(host, port, error) from error
        await super().startup(sockets)
        if self._parent is not None:
            asyncio.get_running_loop().add_reader(self._parent, self._orphaned)
        self._ready()

    def _orphaned(self) -> None:
        if self._parent is not None:
            asyncio.get_running_loop().remove_reader(self._parent)
            self._leave(0)

    async def on_tick(self, counter: int) -> bool:
        self.should_exit |= self._leaves is not None and time.monotonic() >= self._leaves
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's would raise the signals again in the end, amid what is being unwound."""
        before = {ending: signal.signal(ending, self.handle_exit) for ending in ENDINGS}
        try:
            yield
        finally:
            for ending, handler in before.items():
                signal.signal(ending, handler)


def _bind(host: str, port: int) -> socket.socket:
    """A socket on the port, which listens from the app's start on: callers are refused before, not kept waiting."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # What it accepts inherits this, which asyncio sets on no socket made elsewhere: without it the body of an answer
        # waits 40 ms for the caller to acknowledge its head.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise _refused(host, port, error) from error
    return bound


def _refused(host: str, port: int, error: OSError | OverflowError) -> StillhouseError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return BusyError(f"port {port} of {host} is taken by another program; choose another: --port N")
    return ServiceError(f"can't listen on {host}, port {port}: {error}; choose others: --host, --port")
