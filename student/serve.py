"""The served student: `vllm serve` on the merged model, on loopback, shared by whoever on this machine needs it."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from labels.errors import ServiceError
from labels.services import Launch, shared_service

STRUCTURED = {"backend": "xgrammar", "disable_any_whitespace": True}


@contextmanager
def served_student(
    model: Path,
    work: Path,
    options: Mapping[str, str | int | float | bool],
    dtype: str,
    start_seconds: float,
    given_up: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """The URL of a vLLM server with the merged `model`, started where none runs, stopped by its last user.

    `options` are `vllm serve` flags by name (max-model-len, …). Raises ServiceError where it does not start in time, or
    `given_up` says that nobody waits for it any more.
    """

    def launch(port: int) -> Launch:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]  # what `vllm serve` runs
        command += ["--model", str(model), "--served-model-name", model.name, "--dtype", dtype]
        command += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
        command += ["--structured-outputs-config", json.dumps(STRUCTURED)]
        for name, value in options.items():
            command += [f"--{name}"] if value is True else [] if value is False else [f"--{name}", str(value)]
        return Launch(command, f"http://127.0.0.1:{port}")

    def healthy(url: str) -> bool:
        if given_up():
            raise ServiceError(f"{model.name}: nobody waits for it any more")
        return _healthy(url)

    with shared_service(work / model.name, "the student's vLLM server", launch, healthy, start_seconds) as url:
        yield url


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
