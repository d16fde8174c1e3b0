"""Settings: a profile (TOML), then the environment, then flags; unknown keys are refused with the nearest valid name.

Loads without torch, vLLM or FAISS. Environment variables: STILLHOUSE_TEACHER__MODEL sets teacher.model.
"""

import difflib
import importlib
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from flows.section import ROOT, File, Model, Section
from flows.student_settings import EvaluateSettings, GateSettings, StudentSettings
from labels.errors import SettingsError
from labels.task import Task

PROFILES = ROOT / "profiles"
ENVIRONMENT = "STILLHOUSE_"
SECRETS = ("STILLHOUSE_TEACHER_KEY", "STILLHOUSE_REVIEW_SECRET", "STILLHOUSE_API_KEYS")
"""Read where they are needed, and by no one else: settings are written into every night."""
DEFAULT_WORK = "stillhouse-data"


class LogSettings(Section):
    """The query log: its file or files (a glob) and its columns' names.

    `session` and `min_sessions`: queries from fewer distinct sessions are kept out. `converted` names the column that
    holds the category of what was clicked or bought after the query. With `misses`, queries that lookups had no answer in
    the head for are taken in too, where the log has not got them yet: the `most_misses` most frequent of them.
    """

    path: File | None = None
    query: str = "query"
    time: str | None = None
    count: str | None = None
    session: str | None = None
    converted: str | None = None
    half_life_days: float | None = Field(None, gt=0)
    min_sessions: int = Field(1, ge=1)
    misses: bool = True
    most_misses: int = Field(100_000, ge=0)

    @property
    def columns(self) -> dict[str, str | None]:
        """Our names of the columns to the file's."""
        return {name: getattr(self, name) for name in ("query", "time", "count", "session", "converted")}


class CatalogueSettings(Section):
    """The catalogue: its file and its columns' names."""

    path: File | None = None
    title: str = "title"
    brand: str | None = "brand"
    product: str | None = None
    category: str | None = None
    id: str | None = None

    @property
    def columns(self) -> dict[str, str | None]:
        """Our names of the columns to the file's."""
        return {name: getattr(self, name) for name in ("title", "brand", "product", "category", "id")}


class RetrievalSettings(Section):
    """How facts and examples are found: `embedder` is `ngrams` or a sentence-transformers model, `lexical` puts
    n-grams beside such a model, `index` is the FAISS kind (by size unless told).
    """

    embedder: str = "ngrams"
    lexical: bool = True
    index: Literal["auto", "flat", "hnsw", "ivfpq"] = "auto"


class GoldSettings(Section):
    """Held-out gold: a file with a query column and one column a field of the task."""

    path: File | None = None
    query: str = "query"


class PriceSettings(Section):
    """What the teacher costs: by GPU-hour (times `gpus`, for as long as it labels), or by million tokens."""

    currency: str = "USD"
    gpu_hour: float | None = Field(None, ge=0)
    gpus: int = Field(1, ge=1)
    million_in: float | None = Field(None, ge=0)
    million_cached: float | None = Field(None, ge=0)
    million_out: float | None = Field(None, ge=0)


class TeacherSettings(Section):
    """The teacher and how it is asked.

    Offline vLLM unless told: `engine` is passed to it as it is. With `url` an OpenAI-compatible server is asked
    instead, `concurrency` prompts at a time, its key taken from STILLHOUSE_TEACHER_KEY; with `replicas` above 1, so
    many vLLM engines under Ray Data (`ray_address`: a running cluster's). `samples` above 1 asks for several answers
    and keeps the best. `flip_sample` labels are asked again each night.
    """

    model: Model
    revision: str | None = None
    facts: int = Field(3, ge=0, le=20)
    examples: int = Field(0, ge=0, le=20)
    example_similarity: float = Field(0.5, ge=0, le=1)
    max_tokens: int = Field(64, ge=8)
    samples: int = Field(1, ge=1, le=64)
    temperature: float = Field(0.7, gt=0, le=2)
    flip_sample: int = Field(200, ge=0)
    engine: dict[str, str | int | float | bool] = Field({})
    url: str | None = None
    concurrency: int = Field(64, ge=1)
    deadline_seconds: float = Field(120, gt=0)
    replicas: int = Field(1, ge=1)
    ray_address: str | None = None
    price: PriceSettings = PriceSettings()

    @model_validator(mode="after")
    def _one_engine(self) -> Self:
        if self.url and self.replicas > 1:
            raise ValueError("url and replicas name two engines; wanted one: a server, or replicas of vLLM under Ray")
        return self


class ReviewSettings(Section):
    """What people verify, and the page they do it on.

    The audit's size is `sample` labels, or what a 95% interval of total `width` takes, or what fits into `minutes`; of
    those given the smallest. Each label stays in it for `window_days`. `active` labels more are chosen to learn from;
    `overlap` of all go to two reviewers, and `gold_share` are hidden gold items. `wait_for_people` ("12h", "90m")
    suspends the night until enough was reviewed. `reviewers` may sign in by their links, which are good for `link_days`
    and begin with `url` where the page is reached by another address. `simulated` has the demo's reviewer answer.
    """

    sample: int = Field(300, ge=0)
    width: float | None = Field(None, gt=0, lt=1)
    minutes: float | None = Field(None, gt=0)
    window_days: int = Field(28, ge=1)
    active: int = Field(60, ge=0)
    overlap: float = Field(0.1, ge=0, le=1)
    gold_share: float = Field(0.05, ge=0, le=0.5)
    wait_for_people: str | None = Field(None, pattern=r"^[1-9]\d*[smhd]$")
    reviewers: list[str] = Field([])
    link_days: int = Field(30, ge=1)
    host: str = "127.0.0.1"
    port: int = Field(8018, ge=1, le=65535)
    url: str | None = Field(None, pattern="^https?://[^/]")
    simulated: bool = False

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.host in ("0.0.0.0", "::") and not self.url:  # noqa: S104 - compared, not bound
            raise ValueError(
                f"host {self.host} is no address to send people to; name theirs too: url = http://…:{self.port}"
            )
        return self

    @property
    def wait_seconds(self) -> float | None:
        """How long a night waits for people; None where it does not."""
        text = self.wait_for_people
        return int(text[:-1]) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[text[-1]] if text else None

    @property
    def address(self) -> str:
        """Where reviewers find the page, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.url or f"http://{host}:{self.port}").rstrip("/")


class CacheSettings(Section):
    """The head, its Redis, and lookups.

    The head is what covers `head_share` of the traffic, but no more than `head_entries` queries and `head_mib` of Redis's
    memory. With `canonical_budget` above 0 a query is also found by another word order or number, where that measurably
    gives a wrong answer to no more than this share of such hits. `kept_generations` stay for a rollback.

    Without `redis_url` the profile starts a redis-server of its own; `cluster` says that the URL is a node of a Cluster.
    Lookups answer within `deadline_ms`. A process keeps the answers to `process_entries` queries; a student's answer is
    kept for `tail_hours`; `in_flight` questions are put to the student at once and `queue` more wait.
    """

    head_share: float = Field(0.98, gt=0, le=1)
    head_entries: int | None = Field(None, ge=1)
    head_mib: float | None = Field(None, gt=0)
    canonical_budget: float = Field(0, ge=0, lt=1)
    kept_generations: int = Field(3, ge=1)
    redis_url: str | None = None
    cluster: bool = False
    deadline_ms: float = Field(300, gt=0)
    process_entries: int = Field(50_000, ge=0)
    tail_hours: float = Field(24, ge=0)
    in_flight: int = Field(64, ge=1)
    queue: int = Field(256, ge=0)


class ServeSettings(Section):
    """The HTTP lookup service: `workers` processes on one port.

    With keys in STILLHOUSE_API_KEYS ("name:key,name:key") only who sends one is answered; `rate` limits requests a second
    of each key (of each address where there are none). `student_url` names servers of the student that run already, with
    {student} for its name; without it the service starts vLLM itself. Queries are logged only where `log_queries` says so.
    """

    host: str = "127.0.0.1"
    port: int = Field(8017, ge=1, le=65535)
    workers: int = Field(1, ge=1)
    rate: float | None = Field(None, gt=0)
    student_url: str | None = Field(None, pattern="^https?://")
    log_queries: bool = False
    drain_seconds: float = Field(10, ge=0)


class ScheduleSettings(Section):
    """When the night runs: a cron line in a time zone."""

    cron: str = "0 2 * * *"
    timezone: str = "UTC"


class Settings(Section):
    """A whole profile."""

    profile: str = "laptop"
    work: str = DEFAULT_WORK
    task: str = "labels.semantic_roles:SemanticRoles"
    seed: int = 0
    log: LogSettings = LogSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    gold: GoldSettings = GoldSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    teacher: TeacherSettings
    student: StudentSettings
    review: ReviewSettings = ReviewSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    gate: GateSettings = GateSettings()
    cache: CacheSettings = CacheSettings()
    serve: ServeSettings = ServeSettings()
    schedule: ScheduleSettings = ScheduleSettings()

    @property
    def folder(self) -> Path:
        """The work folder, absolute: all state lies under it."""
        return Path(self.work).expanduser().resolve()

    def task_class(self) -> type[Task]:
        """The task, imported from `module:Class`. Raises SettingsError where it is not there."""
        module, _, name = self.task.partition(":")
        if "" not in sys.path:
            sys.path.append("")  # a task of one's own lies where the command is run
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise SettingsError(
                f"task = {self.task!r}: wanted module:Class of a labels.task.Task, got {error}"
            ) from None
        if not (isinstance(found, type) and issubclass(found, Task)):
            raise SettingsError(f"task = {self.task!r} is no subclass of labels.task.Task")
        return found


def load_settings(
    profile: str = "laptop",
    changes: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of `profile` (a shipped name or a TOML file), changed by environment and then by `changes`.

    `changes` maps dotted keys (teacher.model) to values. Raises SettingsError naming the key, what was wanted and, for
    an unknown key, the nearest valid one.
    """
    values = _read_profile(profile)
    env = os.environ if environment is None else environment
    for name, text in sorted(env.items()):
        if name.startswith(ENVIRONMENT) and name not in SECRETS:
            key = name.removeprefix(ENVIRONMENT).lower().replace("__", ".")
            _put(values, key, _parse(text), f"the environment's {name}")
    for key, value in (changes or {}).items():
        _put(values, key, value, f"--set {key}")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"profile {profile}: {_explain(error)}") from None


def parse_sets(pairs: Sequence[str]) -> dict[str, object]:
    """Flags of the form key=value; values are TOML where they parse as such, else plain text."""
    changes: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise SettingsError(f"--set {pair}: wanted key=value, such as --set log.query=search_term")
        changes[key.strip()] = _parse(text.strip())
    return changes


def _read_profile(profile: str) -> dict[str, Any]:
    path = Path(profile) if profile.endswith(".toml") else PROFILES / f"{profile}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.toml")))
        raise SettingsError(f"no profile {profile!r}; wanted one of {known}, or the path of a .toml file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"profile {path} is not valid TOML: {error}") from None
    return {"profile": path.stem, **values}


def _put(values: dict[str, Any], key: str, value: object, source: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise SettingsError(f"{source}: {section} is not a section")
    values[last] = value


def _parse(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, _all_keys(Settings), n=1, cutoff=0.4)
            lines.append(f"there is no setting {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        else:
            lines.append(f"{key}: {problem['msg']}, got {problem.get('input')!r}")
    return "; ".join(lines)


def _all_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys
