"""Other tools (for labelling, review, caching), each in a virtual environment of its own, asked through one small script each.

A script is given a job on its standard input and prints what came of it as the last line of its output.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

REDIS_PY = ("redis==8.1.0", "hiredis==3.5.0")  # as in requirements/: each cache is timed beside it
PINS = {
    "distilabel": ("distilabel[openai]==1.5.3", "requests==2.34.2"),  # it imports requests without asking for it
    "curator": ("bespokelabs-curator==0.1.31",),
    "label_studio": ("label-studio==1.23.2",),
    "potato": ("potato-annotation==2.12.1",),
    "cashews": ("cashews[redis]==7.6.0", *REDIS_PY),
    "diskcache": ("diskcache==5.6.3", *REDIS_PY),
    "redisvl": ("redisvl==0.28.0", *REDIS_PY),
    "langchain": ("langchain-community==0.4.2", *REDIS_PY),
    "litellm": ("litellm==1.102.4", *REDIS_PY),
    "gptcache": (
        "gptcache==0.1.44",
        "sqlalchemy==2.1.9",
        "faiss-cpu==1.15.1",
        *REDIS_PY,
    ),  # it would install the two itself
}
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TELEMETRY_ENABLED": "false",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_API_KEY": "none",
    "NO_PROXY": "127.0.0.1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Job:
    """What to ask: chat messages for each prompt, of which server, how, and an empty folder to keep things in."""

    url: str
    model: str
    prompts: Sequence[Sequence[dict[str, str]]]
    schema: dict[str, object]
    max_tokens: int
    concurrency: int
    folder: str


@dataclass(frozen=True)
class Told:
    """What a peer did: its answers in the prompts' order (None where it gave none), tokens, seconds.

    `seconds` run from its first request to its results on disk; its own start is not counted.
    """

    answers: list[str | None]
    tokens_in: int
    tokens_out: int
    seconds: float


def environment(name: str, folder: Path) -> Path:
    """The Python of the peer's virtual environment under `folder`, installed at the first use."""
    python = folder / name / "bin" / "python"
    done = folder / name / "installed.txt"
    if not done.exists():
        venv.create(folder / name, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *PINS[name]]
        subprocess.run(install, check=True, stdout=sys.stderr)
        done.write_text("\n".join(PINS[name]))
    return python


def ask(name: str, folder: Path, job: Job) -> Told:
    """Have the peer do the job in a process of its own."""
    script = Path(__file__).with_name(f"with_{name}.py")
    done = subprocess.run(
        [str(environment(name, folder)), str(script)],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        env={**os.environ, **QUIET},
        cwd=job.folder,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return Told(**json.loads(done.stdout.splitlines()[-1]))
