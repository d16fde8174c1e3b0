"""Other caches, each in a process and a virtual environment of its own, beside bare redis-py in that same process."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import CalledProcessError
from typing import Literal

from benchmarks.peers import QUIET, environment

LIMIT_SECONDS = 180.0


@dataclass(frozen=True)
class Peer:
    """A cache: whose environment it lives in, where its answers come from, whether it is asked in an event loop.

    `entries` at most are put in.
    """

    environment: str
    where: Literal["process", "server", "file"]
    in_loop: bool
    entries: int = 20_000


PEERS = {
    "cashews_memory": Peer("cashews", "process", True),
    "cashews_client_side": Peer("cashews", "process", True),
    "cashews_redis": Peer("cashews", "server", True),
    "diskcache": Peer("diskcache", "file", False),
    "redisvl": Peer("redisvl", "server", False),
    "langchain": Peer("langchain", "server", False),
    "litellm": Peer("litellm", "server", False),
    "litellm_async": Peer("litellm", "server", True),
    "gptcache_map": Peer("gptcache", "process", False, 10_000),  # filling it takes the square of that
    "gptcache_faiss": Peer("gptcache", "file", False, 2_000),
}


@dataclass(frozen=True)
class Job:
    """What to put in, what to ask for, how often (each time for so many seconds), and which Redis and folder are empty."""

    cache: str
    url: str
    folder: str
    entries: Sequence[tuple[str, str]]
    asked: Sequence[str]
    rounds: int
    seconds: float


@dataclass(frozen=True)
class Rates:
    """Answers a second of the cache, and of bare redis-py's GET beside it, by round."""

    cache: list[float]
    bare: list[float]


def time_cache(folder: Path, job: Job) -> Rates | str:
    """The rates of the job's cache, whose environment lies in `folder`; the reason, where it can't be measured."""
    script = Path(__file__).with_name("with_cache.py")
    try:
        python = environment(PEERS[job.cache].environment, folder)
        done = subprocess.run(
            [str(python), str(script)],
            input=json.dumps(asdict(job)),
            capture_output=True,
            text=True,
            env={**os.environ, **QUIET},
            cwd=job.folder,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except (OSError, CalledProcessError) as error:
        return f"it can't be installed: {error}"
    except subprocess.TimeoutExpired:
        return f"it was not done in {LIMIT_SECONDS:.0f} s"
    if done.returncode:
        sys.stderr.write(done.stderr[-3000:])
        return f"it failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1][:300]}"
    return Rates(**json.loads(done.stdout.splitlines()[-1]))
