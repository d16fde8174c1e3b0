"""A night: its settings, its folder and what it has open. Every stage takes one and can be called without Prefect."""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from evals.gold import read_gold
from flows.screen import Screen
from flows.settings import Settings
from labels.errors import BusyError, SettingsError
from labels.files import read_manifest, write_text
from labels.guardrails import guardrails_of
from labels.records import Label
from labels.services import stop_unused
from labels.tables import open_table
from labels.task import Task
from labels.warehouse import Warehouse
from teacher.log import check_columns

ID = "%Y-%m-%dT%H-%M-%S"
SECRET = {"cache": {"redis_url"}, "teacher": {"url"}, "serve": {"student_url"}}
"""Settings that may hold a password, and are not written down."""


@dataclass(frozen=True)
class Night:
    """One run of the nightly flow. `open` holds the services it uses; they end with it. `began`: in UTC, and of a night
    that waited for people before it did.
    """

    id: str
    settings: Settings
    screen: Screen
    open: ExitStack = field(default_factory=ExitStack)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def work(self) -> Path:
        """The work folder."""
        return self.settings.folder

    @property
    def folder(self) -> Path:
        """This night's own folder."""
        return self.work / "nights" / self.id

    @cached_property
    def task(self) -> type[Task]:
        """The task."""
        return self.settings.task_class()

    @cached_property
    def warehouse(self) -> Warehouse:
        """The labels, verdicts and queries."""
        return Warehouse(self.work / "warehouse")

    @cached_property
    def gold(self) -> dict[str, Task]:
        """The held-out gold by query; empty where none is given."""
        gold = self.settings.gold
        return read_gold(Path(gold.path), gold.query, self.task) if gold.path else {}

    @cached_property
    def redis_url(self) -> str:
        """The Redis to publish to; the profile's own is started at the first use."""
        from cache.server import local_redis

        given = self.settings.cache.redis_url
        return given or self.open.enter_context(local_redis(self.work / "redis"))

    def student_url(self, model: Path) -> str:
        """The server of this student, started at the first use."""
        from student.serve import served_student

        s = self.settings.student
        dtype = (read_manifest(model) or {}).get("dtype", s.dtype)  # the type it was merged in and held against
        service = served_student(model, self.work / "services", s.server, dtype, s.start_seconds)
        with self.screen.waiting(f"starting vLLM with {model.name}"):
            return self.open.enter_context(service)

    def queries(self) -> pa.Table:
        """The night's queries, most frequent first: query, traffic, night, band."""
        return pq.read_table(self.work / "warehouse" / "queries" / f"{self.id}.parquet")

    @cached_property
    def labels(self) -> list[Label]:
        """The labels of the night's queries, in the queries' order, whenever they were made. After labelling only."""
        return self.warehouse.labels(pq.read_table(self.folder / "requests.parquet")["identity"].to_pylist())


@contextmanager
def begin_night(
    settings: Settings, screen: Screen, services: ExitStack | None = None, again: str | None = None
) -> Iterator[Night]:
    """A new night that alone holds the work folder, or the one with the id `again`. Raises BusyError where another does.

    What it starts ends with it, or with `services` where these are given.
    """
    work = settings.folder
    with alone_in(work), ExitStack() as own:
        check_inputs(settings)
        own.callback(stop_left_behind, work)
        id_ = again or _free_id(work)
        began = datetime.strptime(id_, ID).replace(tzinfo=UTC) + timedelta(seconds=1)  # the end of the second it names
        night = Night(id_, settings, screen, services or own, began)
        night.folder.mkdir(parents=True, exist_ok=bool(again))
        write_text(night.folder / "settings.json", settings.model_dump_json(indent=2, exclude=SECRET))
        yield night


@contextmanager
def alone_in(work: Path) -> Iterator[None]:
    """Hold the work folder. Raises BusyError where another night or training holds it."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "night.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another night is running in {work}, or a training; wait for it, or give this one its own folder with --work"
            ) from None
        yield


def _free_id(work: Path) -> str:
    """The present second; where a night began in it already, the next one."""
    while (work / "nights" / (present := datetime.now(UTC).strftime(ID))).exists():
        time.sleep(0.05)
    return present


@contextmanager
def passing_night(settings: Settings, screen: Screen) -> Iterator[Night]:
    """A night that only looks: its folder and its queries are gone when it ends."""
    with begin_night(settings, screen) as night:
        try:
            yield night
        finally:
            shutil.rmtree(night.folder)
            night.warehouse.queries_file(night.id).unlink(missing_ok=True)


def stop_left_behind(work: Path) -> None:
    """Stop what nights killed with -9 left running, and this one had no use for."""
    for folder in (work / "redis", work / "prefect", *(work / "services").glob("*")):
        stop_unused(folder)


def check_inputs(settings: Settings) -> None:
    """Raise at once, before anything is started, where a file is not named, not there or lacks a column, or a task's
    guardrail can't be used.
    """
    guardrails_of(settings.task_class())
    log, catalogue = settings.log, settings.catalogue
    files = (
        ("log", log.path, log.columns),
        ("catalogue", catalogue.path, catalogue.columns),
    )
    for name, path, columns in files:
        if not path:
            raise SettingsError(f"no {name} is named; wanted --{name} FILE, or {name}.path in the profile")
        open_table(duckdb.connect(), path, columns, f"the {name}")
    check_columns(log.columns, log.min_sessions)
    if settings.gold.path:
        read_gold(Path(settings.gold.path), settings.gold.query, settings.task_class())
