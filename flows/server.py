"""Prefect's server of a work folder: its first night starts it, all of them share it, the last one stops it.

Prefect's own temporary server will not do: it outlives a night killed with -9, and it has no scheduler.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from labels.services import Launch, shared_service

START_SECONDS = 180.0


@contextmanager
def prefect_server(work: Path) -> Iterator[None]:
    """Prefect's API inside the block: that of PREFECT_API_URL where it is set, else that of our own server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if PREFECT_API_URL.value():
        yield
        return

    def launch(port: int) -> Launch:
        command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--host", "127.0.0.1"]
        return Launch([*command, "--port", str(port)], f"http://127.0.0.1:{port}/api")

    service = shared_service(work / "prefect", "Prefect's server", launch, _healthy, START_SECONDS)
    with service as url, temporary_settings({PREFECT_API_URL: url}):
        yield


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
