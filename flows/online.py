"""The release being served: looking up, serving over HTTP, rolling back."""

import asyncio
import json
import logging
import mmap
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape

from cache.api_keys import parse_api_keys
from cache.client import AsyncClient, Client, connect, connect_async
from cache.http import LookupApp, create_app
from cache.journal import Journal
from cache.log import note
from cache.lookup import Lookup, Student
from cache.release import current_release, releases, rollback
from cache.roll import Roller, wait_ready
from cache.serve import run
from cache.server import local_redis
from evals.page.guard import LOOPBACK
from flows.reviewing import drawn_nights, review_app
from flows.rolling import HeldStudents, student_server
from flows.settings import Settings
from labels.errors import ServiceError, StillhouseError
from labels.records import Release
from student.client import StudentClient
from teacher.privacy import mask

API_KEYS = "STILLHOUSE_API_KEYS"
MARGIN_SECONDS = 15.0  # a server that can't start a student in time says why itself
LINGER_SECONDS = 1.0  # beyond the deadline of the last question that was put to a student before the switch


@contextmanager
def redis_of(settings: Settings) -> Iterator[str]:
    """The URL of the profile's Redis; its own is started where the settings name none."""
    if settings.cache.redis_url:
        yield settings.cache.redis_url
    else:
        with local_redis(settings.folder / "redis") as url:
            yield url


@contextmanager
def redis_client(settings: Settings) -> Iterator[Client]:
    """A client of the profile's Redis."""
    with redis_of(settings) as url, closing(connect(url, settings.cache.cluster)) as client:
        yield client


def look_up(settings: Settings, query: str) -> dict[str, Any]:
    """One answer, as lookup's JSON. The student is started only for a miss. Raises ServiceError without a release."""
    with ExitStack() as stack:
        url = stack.enter_context(redis_of(settings))
        release = release_at(settings, url)
        answer, fit = asyncio.run(_ask(settings, url, None, query))
        if answer["source"] == "none" and fit:
            student = stack.enter_context(student_server(settings, release.student))
            answer, _ = asyncio.run(_ask(settings, url, (student, release.student), query))
    return answer


def serve_lookups(settings: Settings) -> None:
    """Serve HTTP until stopped. The student rolls with the release: the next is ready before a switch, the old goes after.

    Raises ServiceError where nothing is released, or the student of the release can't be served at the start.
    """
    console, serve = Console(highlight=False), settings.serve  # to people; standard error is the log's alone
    keys = parse_api_keys(os.environ.get(API_KEYS, ""))
    with redis_of(settings) as url:
        release = release_at(settings, url)
        host = f"[{serve.host}]" if ":" in serve.host else serve.host
        address = f"http://{host}:{serve.port}"
        wait = "" if serve.student_url else ", once vLLM has it (about half a minute)"
        console.print(
            f"release {release.release} with {release.student}{wait}: {address}/v1/lookup?q=…  (schema: /openapi.json)",
            soft_wrap=True,
        )
        if keys is None and host not in LOOPBACK:
            console.print(
                f"[yellow]warning:[/] {escape(serve.host)} may be reached by others, and {API_KEYS} asks nobody for a key"
            )
        if drawn_nights(settings):
            page = settings.review.url or f"{address}/review"
            links = f"stillhouse review links --set review.url={page}"
            console.print(f"people review at {page} (their links: {links})", soft_wrap=True)
        started = mmap.mmap(-1, 1)  # shared by all workers: the first to start must have the student

        def make_app() -> LookupApp:
            app = create_app(
                lambda: serving_lookup(settings, url, started),
                keys=keys,
                rate=serve.rate,
                log_queries=serve.log_queries,
            )
            if drawn_nights(settings):
                mount_review(app, settings)
            return app

        run(make_app, serve.host, serve.port, serve.workers, serve.drain_seconds)


@asynccontextmanager
async def serving_lookup(settings: Settings, url: str, started: mmap.mmap) -> AsyncIterator[Lookup]:
    """A lookup whose students roll with the releases. `started` is one byte: whether any process has come so far.

    Raises ServiceError where the student of the release can't be served, once: a process that is started in the place of
    another serves the cache alone until it can.
    """

    async def served() -> Release | None:
        return (await lookup.current())[0]

    linger = 2 * settings.cache.deadline_ms / 1000 + LINGER_SECONDS  # a question's own deadline, and that of its flight
    warn = partial(note, level=logging.WARNING)
    async with HeldStudents(settings, warn) as students:
        try:
            await students.hold((await asyncio.to_thread(release_at, settings, url)).student, patience=0)
        except StillhouseError as error:
            if not started[0]:
                raise
            warn(f"the student is not ready: {error}")
        async with (
            lookup_with(settings, url, students.clients) as lookup,
            closing_async(connect_async(url, settings.cache.cluster)) as client,
            Roller(client, students, served, linger, note, warn),
        ):
            started[0] = 1
            yield lookup


@asynccontextmanager
async def closing_async(client: AsyncClient) -> AsyncIterator[AsyncClient]:
    """The client, closed at the end."""
    try:
        yield client
    finally:
        await client.aclose()


def lookup_with(settings: Settings, url: str, students: Mapping[str, Student], shoppers: bool = True) -> Lookup:
    """A lookup as the settings want it, with the students by their names.

    Only what `shoppers` ask counts for the day's figures, and is read by the next night.
    """
    cache = settings.cache
    return Lookup(
        connect_async(url, cache.cluster),
        students,
        settings.task_class(),
        deadline=cache.deadline_ms / 1000,
        process_entries=cache.process_entries,
        tail_seconds=round(cache.tail_hours * 3600),
        in_flight=cache.in_flight,
        queue=cache.queue,
        mask=lambda query: mask(query)[0],
        journal=Journal(days=shoppers, misses=shoppers and settings.log.misses),
    )


def mount_review(app: LookupApp, settings: Settings) -> None:
    """Put the review page at /review; lookups are served even where it can't be."""
    try:
        app.mount("/review", review_app(settings))
    except (StillhouseError, OSError) as error:
        note(f"no review page: {error}", logging.WARNING)


def roll_back(settings: Settings, release: str | None) -> Release:
    """Serve an earlier release again, once every server of lookups has its student ready."""
    console = Console(stderr=True, highlight=False)
    with redis_client(settings) as client:
        ready = ready_within(settings, client, lambda text: console.print(f"[dim]{escape(text)}[/]"))
        return rollback(client, release, ready)


def ready_within(settings: Settings, client: Client, say: Callable[[str], None]) -> Callable[[Release], None]:
    """What `publish` and `rollback` call before a switch: it waits for the servers of lookups, as long as a start may take."""
    seconds = settings.student.start_seconds + MARGIN_SECONDS
    return lambda release: wait_ready(client, release, seconds, say)


def release_at(settings: Settings, url: str) -> Release:
    """The release served by this Redis. Raises ServiceError where there is none."""
    with closing(connect(url, settings.cache.cluster)) as client:
        release = current_release(client)
        lost = release is None and releases(client)
    if lost:
        raise ServiceError("Redis has lost which release it serves; `stillhouse rollback` serves the last one again")
    if release is None:
        raise ServiceError("nothing is released yet; run `make demo`, or `stillhouse night --log … --catalogue …`")
    return release


async def _ask(
    settings: Settings, url: str, student: tuple[str, str] | None, query: str
) -> tuple[dict[str, Any], bool]:
    """The answer with the student at (URL, name) or of the cache alone, and whether a release can be served at all."""
    clients: dict[str, Student] = {}
    async with AsyncExitStack() as stack:
        if student:
            client = StudentClient(*student, settings.task_class(), settings.student.max_tokens)
            clients[client.name] = await stack.enter_async_context(client)
        lookup = await stack.enter_async_context(lookup_with(settings, url, clients, shoppers=False))
        answer = await lookup.get(query)
        release, _ = await lookup.current()
        return json.loads(answer.to_json()), release is not None
