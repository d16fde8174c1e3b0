"""The release being served: looking up, serving over HTTP, listing releases and rolling back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import redis
from fastapi import FastAPI
from rich.console import Console
from rich.markup import escape

from cache.client import connect, connect_async
from cache.http import create_app, run
from cache.lookup import Lookup
from cache.publish import current_release, releases, rollback
from cache.server import local_redis
from flows.reviewing import drawn_nights, review_app
from flows.settings import Settings
from labels.errors import ServiceError, StillhouseError
from labels.files import read_manifest
from labels.records import Release
from student.client import StudentClient
from student.serve import served_student


@contextmanager
def redis_of(settings: Settings) -> Iterator[str]:
    """The URL of the profile's Redis; its own is started where the settings name none."""
    if settings.cache.redis_url:
        yield settings.cache.redis_url
    else:
        with local_redis(settings.folder / "redis") as url:
            yield url


@contextmanager
def redis_client(settings: Settings) -> Iterator[redis.Redis]:
    """A client of the profile's Redis."""
    with redis_of(settings) as url, closing(connect(url)) as client:
        yield client


def look_up(settings: Settings, query: str) -> dict[str, Any]:
    """One answer, as lookup's JSON. The student is started only for a miss. Raises ServiceError without a release."""
    with ExitStack() as stack:
        url = stack.enter_context(redis_of(settings))
        release = release_at(url)
        answer = asyncio.run(_ask(settings, url, None, query))
        if answer["source"] == "none":
            student = stack.enter_context(student_of(settings, release))
            answer = asyncio.run(_ask(settings, url, (student, release.student), query))
    return answer


def serve_lookups(settings: Settings) -> None:
    """Serve HTTP until stopped, with the Redis and the student of the release served at the start."""
    console = Console(stderr=True, highlight=False)
    with ExitStack() as stack:
        url = stack.enter_context(redis_of(settings))
        release = release_at(url)
        with console.status(f"starting vLLM with {release.student} …"):
            student = stack.enter_context(student_of(settings, release))

        @asynccontextmanager
        async def make_lookup() -> AsyncIterator[Lookup]:
            async with _lookup(settings, url, (student, release.student)) as lookup:
                yield lookup

        serve = settings.serve
        console.print(
            f"release {release.release} on http://{serve.host}:{serve.port}/v1/lookup?q=…  (schema: /openapi.json)"
        )
        app = create_app(make_lookup)
        if drawn_nights(settings):
            mount_review(app, settings, console)
        run(app, serve.host, serve.port)


def mount_review(app: FastAPI, settings: Settings, console: Console) -> None:
    """Put the review page at /review; lookups are served even where it can't be."""
    address = settings.review.url or f"http://{settings.serve.host}:{settings.serve.port}/review"
    try:
        app.mount("/review", review_app(settings))
    except (StillhouseError, OSError) as error:
        console.print(f"[yellow]no review page:[/] {escape(str(error))}")
        return
    console.print(
        f"people review at {address} (their links: stillhouse review links --set review.url={address})", soft_wrap=True
    )


def list_releases(settings: Settings) -> list[dict[str, Any]]:
    """All releases served, the latest last, the current one marked."""
    with redis_client(settings) as client:
        current = current_release(client)
        found = releases(client)
    return [
        {name: value for name, value in asdict(one).items() if name != "normalisation"}
        | {"serving": one.release == current.release if current else False}
        for one in found
    ]


def roll_back(settings: Settings, release: str | None) -> Release:
    """Serve an earlier release again."""
    with redis_client(settings) as client:
        return rollback(client, release)


def release_at(url: str) -> Release:
    """The release served by this Redis. Raises ServiceError where there is none."""
    with closing(connect(url)) as client:
        release = current_release(client)
    if release is None:
        raise ServiceError("nothing is released yet; run `make demo`, or `stillhouse night --log … --catalogue …`")
    return release


@contextmanager
def student_of(settings: Settings, release: Release) -> Iterator[str]:
    """The URL of the server of a release's student. Raises ServiceError where its model is not in the work folder."""
    model: Path = settings.folder / "students" / release.student
    if not read_manifest(model):
        raise ServiceError(f"release {release.release} wants {release.student}, which is not in {model.parent}")
    s = settings.student
    dtype = (read_manifest(model) or {}).get("dtype", s.dtype)
    with served_student(model, settings.folder / "services", s.server, dtype, s.start_seconds) as url:
        yield url


@asynccontextmanager
async def _lookup(settings: Settings, url: str, student: tuple[str, str] | None) -> AsyncIterator[Lookup]:
    """A lookup with the student at (URL, name), or with the cache alone."""
    task, deadline = settings.task_class(), settings.cache.deadline_ms / 1000
    if student is None:
        async with Lookup(connect_async(url), None, task, deadline) as lookup:
            yield lookup
    else:
        client = StudentClient(*student, task, settings.student.max_tokens)
        async with client, Lookup(connect_async(url), client, task, deadline) as lookup:
            yield lookup


async def _ask(settings: Settings, url: str, student: tuple[str, str] | None, query: str) -> dict[str, Any]:
    async with _lookup(settings, url, student) as lookup:
        return asdict(await lookup.get(query))
