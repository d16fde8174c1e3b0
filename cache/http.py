"""Lookup over HTTP, as an ASGI app: served by `cache.serve.run`, or mounted in an app of your own.

    answers = create_app(lambda: Lookup(connect_async(url), students, SemanticRoles))

    @asynccontextmanager
    async def lifespan(_):  # Starlette and FastAPI start no app that is mounted in theirs
        async with answers.router.lifespan_context(answers):
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/answers", answers)

The two lookup routes are plain ASGI, which leaves most of a request's time to the answer; Starlette does the rest.
"""

import asyncio
import json
import logging
import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from cache.api_keys import ApiKeys, key_of
from cache.log import note
from cache.lookup import Lookup
from cache.metrics import CONTENT_TYPE, Metrics
from cache.openapi import describe
from cache.rates import Rates
from cache.request import check_versions, header, parse_batch, parse_query_string, read_body, sane_id
from cache.shared import Shared
from labels.errors import InputError

LOOKUP = "/v1/lookup"
READY = "/readyz"
METRICS = "/metrics"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
SLOW = 1.5  # times the deadline: an answer that took longer is logged
TICK_SECONDS = 0.5
MOST_LOGGED = 50
"""Failed requests logged between two ticks; the rest of a flood is counted."""
NOTHING_HERE = f"nothing lies here; queries go to {LOOKUP}, and /openapi.json tells the rest"
NOT_STARTED = "the service has not been started; whoever mounts it enters its lifespan, as cache.http says"

MakeLookup = Callable[[], AbstractAsyncContextManager[Lookup]]
RawHeaders = list[tuple[bytes, bytes]]


def create_app(
    make_lookup: MakeLookup, *, keys: ApiKeys | None = None, rate: float | None = None, log_queries: bool = False
) -> "LookupApp":
    """The service. `make_lookup` is entered when the app starts and left when it stops.

    With `keys` only who sends one is answered lookups and metrics. `rate` is how many requests a second each key, or
    without keys each address, may send; of a proxy on this machine, or one that uvicorn's FORWARDED_ALLOW_IPS names, it
    is the address in X-Forwarded-For. `log_queries` writes the text of slow and failed lookups into the log.
    """
    return LookupApp(make_lookup, keys, rate, log_queries)


class LookupApp(Starlette):
    """The service; `create_app` makes it. More can be mounted beside its own paths, as in any Starlette app."""

    def __init__(self, make_lookup: MakeLookup, keys: ApiKeys | None, rate: float | None, log_queries: bool) -> None:
        routes = [
            Route("/healthz", self._healthz),
            Route(READY, self._readyz),
            Route(METRICS, self._metrics),
            Route("/openapi.json", self._openapi),
        ]
        handlers: dict[Any, Any] = {HTTPException: _said}
        super().__init__(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)
        self._make_lookup, self._keys, self._rate, self._log_queries = make_lookup, keys, rate, log_queries
        self._lookup: Lookup | None = None
        self._shared, self._worker = Shared(), 0
        self._rates: Rates | None = None
        self._statuses: Counter[int] = Counter()
        self._process_hits = 0
        self._draining = False
        self._failures = 0  # since the last tick
        self._ids, self._id_start = count(), b""
        self._headers: RawHeaders = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        self._json_headers = [(b"content-type", b"application/json"), *self._headers]

    def share(self, shared: Shared, worker: int) -> None:
        """Be the `worker`th of several processes. To be called before the app starts."""
        self._shared, self._worker = shared, worker

    def drain(self) -> None:
        """Say that no more should be asked: /readyz turns to 503, and every answer ends its connection."""
        self._draining = True
        self._headers.append((b"connection", b"close"))
        self._json_headers.append((b"connection", b"close"))
        note("drain")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: the lookups here, all others by Starlette's way."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        headers = scope["headers"]
        request_id = sane_id(header(headers, b"x-request-id")) or b"%b-%x" % (self._id_start, next(self._ids))
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path != LOOKUP:
            await self._other(scope, receive, send, path, request_id)
            return
        status, more = 200, _NONE
        try:
            if self._keys is not None or self._rates is not None:
                self._admit(scope)
            body = await self._answer(scope, receive, headers, request_id)
        except Exception as error:
            status, body, more = self._failure(scope, error, request_id)
        self._statuses[status] += 1
        length = (b"content-length", b"%d" % len(body))
        start = [*self._json_headers, length, (b"x-request-id", request_id), *more]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive, headers: RawHeaders, request_id: bytes) -> bytes:
        """The JSON that answers a lookup."""
        lookup = self._lookup
        if lookup is None:
            raise HTTPException(503, NOT_STARTED)
        method = scope["method"]
        if method in ("GET", "HEAD"):
            asked = parse_query_string(scope["query_string"])
            if len(asked) > 1:
                check_versions(asked.get("task"), asked.get("normalisation"), lookup.task.name)
            query = asked.get("q", "")
            answer = lookup.known(query)
            if answer is None:
                answer = await lookup.get(query)
                self._slow(answer.milliseconds, 1, [query], request_id)
            else:
                self._process_hits += 1
            return answer.to_json()
        if method != "POST":
            raise HTTPException(405, f"wanted GET or POST, got {method[:20]}", {"Allow": "GET, HEAD, POST"})
        batch = parse_batch(await read_body(receive, headers), header(headers, b"content-type"))
        check_versions(batch.task, batch.normalisation, lookup.task.name)
        answers = await lookup.get_many(batch.queries)
        self._slow(answers[0].milliseconds, len(answers), batch.queries, request_id)
        return b'{"answers":[%b]}' % b",".join([answer.to_json() for answer in answers])

    async def _other(self, scope: Scope, receive: Receive, send: Send, path: str, request_id: bytes) -> None:
        """Everything but lookups, with the headers that every answer has."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._statuses[message["status"]] += 1
                own = {name for name, _ in message["headers"]}
                ours = [(name, value) for name, value in self._headers if name not in own]
                message["headers"] = [*message["headers"], *ours, (b"x-request-id", request_id)]
                if message["status"] >= 400 and path != READY:
                    self._failed(message["status"], {"id": request_id.decode()})
            await send(message)

        try:
            if path == METRICS and self._keys is not None:
                self._admit(scope)
            await super().__call__(scope, receive, send_with_headers)
        except HTTPException as error:
            await _said(None, error)(scope, receive, send_with_headers)
        except Exception as error:  # Starlette has answered it
            self._failed(500, {"id": request_id.decode()}, error)

    def _admit(self, scope: Scope) -> None:
        """401 for who has no key where keys are wanted, 429 for who asks too often."""
        caller: int | str = scope["client"][0] if scope.get("client") else ""
        if self._keys is not None:
            key = self._keys.number(key_of(scope["headers"]))
            if key is None:
                raise HTTPException(
                    401, "wanted an API key: send `Authorization: Bearer KEY`", {"WWW-Authenticate": "Bearer"}
                )
            caller = key
        if self._rates is not None and (seconds := self._rates.wait(caller)):
            wait = str(math.ceil(seconds))
            raise HTTPException(429, f"wanted at most {self._rate:g} requests a second", {"Retry-After": wait})

    def _failure(self, scope: Scope, error: Exception, request_id: bytes) -> tuple[int, bytes, RawHeaders]:
        """Status, body and headers that say what was wrong; logged."""
        told: dict[str, object] = {"id": request_id.decode(), "path": LOOKUP}
        if isinstance(error, InputError):
            status, words, more = 400, str(error), _NONE
        elif isinstance(error, HTTPException):
            status, words = error.status_code, error.detail
            more = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
        else:
            status, words, more = 500, f"something is wrong here; the log says more of request {told['id']}", _NONE
        if self._log_queries:
            told["query_string"] = scope["query_string"][:1000].decode(errors="replace")
        self._failed(status, told | {"reason": words}, error if status == 500 else None)
        return status, _json({"error": words}), more

    def _failed(self, status: int, told: dict[str, object], error: Exception | None = None) -> None:
        self._failures += 1
        if error is not None or self._failures <= MOST_LOGGED:
            note("failed", logging.ERROR if status >= 500 else logging.WARNING, error, {"status": status} | told)

    def _slow(self, milliseconds: float, asked: int, queries: list[str], request_id: bytes) -> None:
        if self._lookup and milliseconds > self._lookup.deadline * 1000 * SLOW:
            told: dict[str, object] = {"id": request_id.decode(), "milliseconds": milliseconds, "asked": asked}
            note("slow", logging.WARNING, told=told | ({"query": queries[0][:200]} if self._log_queries else {}))

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._id_start = os.urandom(5).hex().encode()  # here, not earlier: processes that were forked differ
        self._rates = None if self._rate is None else Rates(self._rate, self._shared.callers)
        note("start", told={"worker": self._worker})
        async with self._make_lookup() as lookup:
            self._lookup, self._metrics_of = lookup, Metrics(lookup, self._counts, self._shared, self._worker)
            ticking = asyncio.create_task(self._tick(lookup))
            try:
                yield
            finally:
                ticking.cancel()
                self._metrics_of.tell(None)
                self._lookup = None
        note("stop", told={"worker": self._worker})

    async def _tick(self, lookup: Lookup) -> None:
        """Twice a second: let the other processes have our counts, and log which release is served, and a failing student."""
        before: object = ()
        failing = False
        while True:
            release, reason = await lookup.current()
            self._metrics_of.tell(release, reason)
            if (now := (release and release.release, reason)) != before:
                told = {"release": release.release, "student": release.student} if release else {}
                told |= {"reason": reason} if reason else {}
                level = logging.WARNING if reason else logging.INFO
                note("ready" if release else "not ready", level, told={"worker": self._worker, **told})
                before = now
            if failing != (lookup.breaker.state != "closed"):
                failing = not failing
                event = "the student fails" if failing else "the student answers again"
                level = logging.WARNING if failing else logging.INFO
                note(event, level, told={"worker": self._worker, "student": release.student if release else ""})
            if self._failures > MOST_LOGGED:
                note("more failed", logging.WARNING, told={"requests": self._failures - MOST_LOGGED})
            self._failures = 0
            await asyncio.sleep(TICK_SECONDS)

    def _counts(self) -> dict[str, Any]:
        return {
            "statuses": {str(status): n for status, n in self._statuses.items()},
            "process_hits": self._process_hits,
        }

    async def _healthz(self, _: Request) -> Response:
        """The process is up."""
        return JSONResponse({"status": "ok"})

    async def _readyz(self, _: Request) -> Response:
        """A release is served, if need be that of a Redis that is away; 503 and why where none is."""
        if self._lookup is None or self._draining:
            release, reason = None, "the service is about to end" if self._draining else NOT_STARTED
        else:
            release, reason = await self._lookup.current()
        if release is None:
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse({"status": "ready", "release": release.release} | ({"reason": reason} if reason else {}))

    async def _metrics(self, _: Request) -> Response:
        """Prometheus's text format."""
        if self._lookup is None:
            raise HTTPException(503, NOT_STARTED)
        return Response(self._metrics_of.text(*await self._lookup.current()), media_type=CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        """What the service takes and gives."""
        if self._lookup is None:
            raise HTTPException(503, NOT_STARTED)
        return JSONResponse(describe(self._lookup.task, request.scope.get("root_path", ""), self._keys is not None))


def _said(_: Request | None, error: HTTPException) -> Response:
    """What Starlette refuses, in the one shape that errors have here."""
    words = NOTHING_HERE if error.status_code == 404 else error.detail
    return JSONResponse({"error": words}, error.status_code, error.headers)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


_NONE: RawHeaders = []
