"""What the labelling benchmarks share: the invented shop, nights of its queries, the profile's teacher and a server of it."""

import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from flows.environment import prepare
from flows.settings import Settings, load_settings
from labels.services import Launch, shared_service

if TYPE_CHECKING:
    from flows.night import Night

POOL = 9_000
"""Distinct queries of the shop."""
STRUCTURED = {"backend": "xgrammar", "disable_any_whitespace": True}
START_SECONDS = 300.0
FIRST_ANSWER_SECONDS = 120.0


def laptop(work: Path, **changes: object) -> Settings:
    """The laptop profile on the invented shop, written under `work`; sets the environment that vLLM needs first.

    vLLM runs its engine in a process of its own, as it does by itself on GPUs, unless VLLM_ENABLE_V1_MULTIPROCESSING=0;
    the laptop profile's nights run it in theirs, which starts sooner. `changes` are settings by dotted key, with __ for
    the dot.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    prepare(offline=True)
    from demo.settings import demo_settings
    from demo.write import write_demo

    write_demo(work / "shop", queries=POOL)
    asked = {**demo_settings(str(work)), "work": str(work), **changes}
    return load_settings("laptop", {key.replace("__", "."): value for key, value in asked.items()}, environment={})


def shop_queries(settings: Settings, count: int) -> list[str]:
    """The shop's `count` most frequent queries, most frequent first."""
    import pyarrow.parquet as pq

    pool = Path(str(settings.gold.path)).with_name("reviewer.parquet")
    queries: list[str] = pq.read_table(pool)["query"].to_pylist()
    return queries[:count]


def night_of(settings: Settings) -> "Night":
    """The benchmark's night in that work folder, silent."""
    from rich.console import Console

    from flows.night import Night
    from flows.screen import Screen

    return Night("bench", settings, Screen(Console(quiet=True)))


def fresh_night(settings: Settings, queries: Sequence[str]) -> "Night":
    """A night that has these queries and an empty warehouse; the catalogue's index stays."""
    import pyarrow as pa

    from labels.files import write_parquet
    from labels.warehouse import QUERIES

    night, count = night_of(settings), len(queries)
    for used in ("warehouse", "nights"):
        shutil.rmtree(settings.folder / used, ignore_errors=True)
    night.folder.mkdir(parents=True)
    columns = {"query": list(queries), "traffic": [1.0] * count, "converted": [None] * count}
    columns |= {"night": [night.id] * count, "band": ["head"] * count}
    write_parquet(night.warehouse.queries_file(night.id), pa.table(columns).cast(QUERIES))
    return night


@contextmanager
def served(settings: Settings, work: Path) -> Iterator[str]:
    """The URL (without /v1) of a vLLM server with the profile's teacher and engine options, on loopback, warmed up."""

    def launch(port: int) -> Launch:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", settings.teacher.model]
        command += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
        command += ["--structured-outputs-config", json.dumps(STRUCTURED), "--enable-prompt-tokens-details"]
        for name, value in settings.teacher.engine.items():
            flag = f"--{name.replace('_', '-')}"
            command += [flag] if value is True else [] if value is False else [flag, str(value)]
        return Launch(command, f"http://127.0.0.1:{port}", {"VLLM_SERVER_DEV_MODE": "1"})  # for /reset_prefix_cache

    os.environ["NO_PROXY"] = "127.0.0.1"
    with shared_service(work / "server", "the benchmark's vLLM server", launch, _healthy, START_SECONDS) as url:
        first = {"model": settings.teacher.model, "messages": [{"role": "user", "content": "milk"}], "max_tokens": 1}
        httpx.post(f"{url}/v1/chat/completions", json=first, timeout=FIRST_ANSWER_SECONDS).raise_for_status()
        yield url


def forget(url: str) -> None:
    """Empty the server's prefix cache, so that each contender starts equal."""
    httpx.post(f"{url}/reset_prefix_cache", timeout=30).raise_for_status()


def asked_of_server(url: str) -> int:
    """How many requests the server has finished, by its own metrics."""
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:request_success_total")))


def spread(ratios: Sequence[float]) -> dict[str, Any]:
    """Median, least and greatest, to three digits."""
    figures = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return {name: round(figure, 3) for name, figure in figures.items()}


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
