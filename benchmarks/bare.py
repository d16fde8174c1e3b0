"""The app that lookups over HTTP are measured against: one asyncio redis-py GET a request, and nothing else.

    python -m benchmarks.bare asgi|fastapi REDIS_URL PORT

Its answers lie in Redis as plain strings, ready JSON, by query. uvicorn runs it with the settings that `stillhouse serve` has.
"""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_plus

import uvicorn
from redis.asyncio import Redis

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
HEADERS = [(b"content-type", b"application/json")]
KEY = "bare:"
"""What its keys begin with."""


def asgi(url: str) -> App:
    """Raw ASGI: the query out of the query string, one GET, the answer as it lies there."""
    redis = Redis.from_url(url)

    async def app(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        query = unquote_plus(scope["query_string"].decode().partition("q=")[2])
        body = await redis.get(KEY + query)
        length = (b"content-length", b"%d" % len(body or b""))
        await send({"type": "http.response.start", "status": 200 if body else 404, "headers": [*HEADERS, length]})
        await send({"type": "http.response.body", "body": body or b""})

    return app


def fastapi(url: str) -> App:
    """The same written as a FastAPI route."""
    from fastapi import FastAPI
    from fastapi.responses import Response

    redis, app = Redis.from_url(url), FastAPI()

    @app.get("/v1/lookup")
    async def lookup(q: str) -> Response:
        """The answer as it lies there."""
        body = await redis.get(KEY + q)
        return Response(body or b"", 200 if body else 404, media_type="application/json")

    return app


def serve(app: App, port: int) -> None:
    """Run it on loopback until stopped."""
    config = uvicorn.Config(
        app,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    serve({"asgi": asgi, "fastapi": fastapi}[sys.argv[1]](sys.argv[2]), int(sys.argv[3]))
