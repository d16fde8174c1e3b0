"""The command line as a user has it: real processes, killed where a test says so, and what they leave running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flows.settings import ROOT

STILLHOUSE = str(Path(sys.executable).with_name("stillhouse"))
SECONDS = 500.0
OPEN_GATE = [
    "--set",
    "gate.teacher_precision=0",
    "--set",
    "gate.student_ratio=0",
    "--set",
    "gate.max_invalid=1",
    "--set",
    "gate.delta=1",
]


def environment(columns: int = 300) -> dict[str, str]:
    """This process's own, without what would change a night; wide, so that no line of a message is broken."""
    ours = ("STILLHOUSE_", "PREFECT_", "VLLM_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"COLUMNS": str(columns)}


def stillhouse(*args: object, columns: int = 300) -> subprocess.CompletedProcess[str]:
    """One command, run to its end."""
    command = [STILLHOUSE, *map(str, args)]
    return subprocess.run(
        command, cwd=ROOT.parent, env=environment(columns), capture_output=True, text=True, timeout=SECONDS
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a command that failed as it should."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    messages = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(messages) == 1, done.stderr
    return messages[0]


def kill_when(reached: Callable[[str], bool], log: Path, *args: object) -> str:
    """Run a command, kill -9 it (it alone, not what it started) as soon as `reached`; what it had said by then.

    `reached` is given what the command has said on stderr, which goes to `log`.
    """
    with log.open("wb") as said:
        process = subprocess.Popen(
            [STILLHOUSE, *map(str, args)], cwd=ROOT.parent, env=environment(), stdout=subprocess.DEVNULL, stderr=said
        )
    give_up = time.monotonic() + SECONDS
    try:
        while not reached(log.read_text(errors="replace")):
            assert process.poll() is None, f"it ended before it could be killed:\n{log.read_text()}"
            assert time.monotonic() < give_up, f"it never got there:\n{log.read_text()}"
            time.sleep(0.02)
    finally:
        process.kill()
        code = process.wait()
    assert code == -signal.SIGKILL, f"it ended before it could be killed:\n{log.read_text()}"
    return log.read_text(errors="replace")


def begun(stage: str) -> Callable[[str], bool]:
    """Whether a night has said the name of a stage."""
    return lambda said: stage in said.splitlines()


def left_of(folder: Path, seconds: float = 30.0) -> dict[int, str]:
    """`processes_of` a folder that nobody uses any more: what was killed may take a moment to be gone."""
    give_up = time.monotonic() + seconds
    while (found := processes_of(folder)) and time.monotonic() < give_up:
        time.sleep(0.1)
    return found


def processes_of(folder: Path) -> dict[int, str]:
    """Every process that names the folder in its command, stands in it or has a file of it open: pid and command."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            places = [os.readlink(process / "cwd"), *(os.readlink(handle) for handle in (process / "fd").iterdir())]
        except OSError:  # it has ended, or is another user's
            continue
        if int(process.name) != os.getpid() and any(str(folder) in text for text in [command, *places]):
            found[int(process.name)] = command
    return found
