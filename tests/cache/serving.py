"""The real service in a process of its own. As a program: python -m tests.cache.serving REDIS_URL PORT OPTIONS(JSON)"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

from cache.api_keys import parse_api_keys
from cache.http import create_app
from cache.serve import run
from labels.errors import ServiceError
from labels.services import free_port
from tests.cache.shop import Echo, looking

LEFT = "left well"


@contextmanager
def serving(redis_url, **options):
    """An HTTP client of the service and its process; see `main` for the options."""
    port = free_port()
    command = [sys.executable, "-m", "tests.cache.serving", redis_url, str(port), json.dumps(options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            until = time.monotonic() + 120
            while True:
                try:
                    http.get("/healthz")
                    break
                except httpx.TransportError:
                    assert time.monotonic() < until
                    assert process.poll() is None, process.stdout.read()
                    time.sleep(0.02)
            yield http, process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ended(process, ending=signal.SIGTERM):
    """The lines a service printed that nobody has read yet, once told to end."""
    process.send_signal(ending)
    printed = process.stdout.read().splitlines()  # `communicate` would lose what a line read before came with
    assert process.wait(60) == 0, printed
    return printed


class Held(Echo):
    """A student that answers nothing until there is a file `gate`."""

    def __init__(self, gate):
        super().__init__()
        self.gate = Path(gate)

    async def ask(self, query):
        while not self.gate.exists():
            await asyncio.sleep(0.02)
        return await super().ask(query)


def main(redis_url, port, gate="", keys="", fails="", workers=1, drain_seconds=1.0, **options):
    """Serve with a student that answers at once, or once there is a file `gate`; with `fails` the app's start raises that."""

    def make_lookup():
        if fails:
            raise ServiceError(fails)
        return looking(redis_url, Held(gate) if gate else Echo(), deadline=60.0)

    def make_app():
        return create_app(make_lookup, keys=parse_api_keys(keys), **options)

    run(make_app, port=port, workers=workers, drain_seconds=drain_seconds)
    print(LEFT)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), **json.loads(sys.argv[3]))
