"""wrk as the online benchmarks use it: it walks a file of requests, and says what it measured as figures."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labels.errors import ServiceError

WALK = Path(__file__).with_name("walk.lua")


@dataclass(frozen=True)
class Measured:
    """What callers saw: requests answered, in how many seconds, their latency, and errors of any kind (a status of 400 on)."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def wrk_binary() -> str:
    """wrk on PATH. Ends the program where there is none."""
    if found := shutil.which("wrk"):
        return found
    raise SystemExit(
        "wanted wrk on PATH, got none; install it (Debian, Ubuntu: `apt install wrk`), then run this again"
    )


def walk(
    url: str, asked: Path, seconds: float, callers: int, method: Literal["GET", "POST"] = "GET", cores: str = ""
) -> Measured:
    """Load `url` for so long with the requests in `asked`: a path a line, or a JSON body a line.

    `cores` pins wrk, as taskset writes them. Raises ServiceError where wrk fails or no request was answered.
    """
    command = [wrk_binary(), "-t1", f"-c{callers}", f"-d{max(1, round(seconds))}s", "--timeout", "5s", "-s", str(WALK)]
    pin = ["taskset", "-c", cores] if cores else []
    done = subprocess.run([*pin, *command, url, "--", str(asked), method], capture_output=True, text=True, check=False)
    told = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode or not told[0].startswith("{"):
        raise ServiceError(f"wrk failed on {url} (exit code {done.returncode}):\n{done.stdout}{done.stderr}")
    measured = Measured(**json.loads(told[0]))
    if not measured.requests:
        raise ServiceError(f"wrk got no answer from {url} in {seconds:.0f} s; is a server there?")
    return measured
