"""Lookup over HTTP: `GET /v1/lookup?q=`, `/healthz` (the process is up), `/readyz` (a release is served)."""

import asyncio
import errno
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from cache.lookup import Answer, Lookup
from labels.errors import BusyError, InputError, ServiceError
from labels.headers import DefaultHeaders

HOST, PORT = "127.0.0.1", 8808
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(make_lookup: Callable[[], AbstractAsyncContextManager[Lookup]]) -> FastAPI:
    """The service as an ASGI app. `make_lookup` is entered when it starts and left when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with make_lookup() as lookup:
            app.state.lookup = lookup
            yield

    app = FastAPI(title="Stillhouse lookup", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(DefaultHeaders, headers=HEADERS)

    @app.exception_handler(InputError)
    async def refuse(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.get("/v1/lookup")
    async def lookup(request: Request, q: str = "") -> Answer:
        """What the query names. 400 where it is empty or too long; no answer is a 200 with source "none"."""
        service: Lookup = request.app.state.lookup
        return await service.get(q)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is up."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(request: Request) -> JSONResponse:
        """A release is served; 503 and why where none is."""
        service: Lookup = request.app.state.lookup
        release, reason = await service.current()
        if release is None:
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse({"status": "ready", "release": release.release})

    return app


def run(app: FastAPI, host: str = HOST, port: int = PORT) -> None:
    """Serve until Ctrl-C or SIGTERM, then drain and return. Call it in the main thread.

    Raises BusyError where the port is taken and ServiceError where it can't be listened on, both before the app
    starts; and whatever the app's start raises.
    """
    # SIGTERM ends it as Ctrl-C does: by unwinding, so that the services it shares are let go of.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with closing(_listen(host, port)) as listening:
            asyncio.run(_serve(app, listening))
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


async def _serve(app: FastAPI, listening: socket.socket) -> None:
    """The app's start and end stand outside uvicorn, which would print a traceback for a start that fails."""
    async with app.router.lifespan_context(app):
        # no access log: no log may hold a query's text
        config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False, server_header=False)
        await uvicorn.Server(config).serve([listening])


def _listen(host: str, port: int) -> socket.socket:
    """A socket on the port, held from before the app starts, so that nobody takes it meanwhile."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise BusyError(f"port {port} of {host} is taken by another program; choose another: --port N") from error
        raise ServiceError(f"can't listen on {host}, port {port}: {error}; choose others: --host, --port") from error
    # What it accepts inherits this, which asyncio sets on no socket made elsewhere: without it the body of an answer
    # waits 40 ms for the caller to acknowledge its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
