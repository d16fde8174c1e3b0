"""A background service that any number of processes share: the first user starts it, the last one stops it.

Used on one machine for what a profile starts itself (a Redis, a vLLM server). Every user holds a shared lock on
`users.lock`; who can make it exclusive on leaving is the last and stops the service. A user killed with -9 loses its
lock with its life, and the next user adopts what still runs. `service.json` names the process from the moment it
exists, so that a start-up cut short is adopted too, never doubled; nobody is given the URL before it answers.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from labels.errors import ServiceError

GRACE_SECONDS = 20.0
KILLED_SECONDS = 5.0
"""So long at most the kernel has to take down what was killed: its memory, a GPU's too, is then free."""
LOG_LINES = 20
LAUNCHER = Path(__file__).with_name("launch.py")
OURS = "STILLHOUSE_"  # settings and secrets, which no service of another's needs
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Launch:
    """How to start a service: its command, the URL it will answer on, and what to add to its environment."""

    command: Sequence[str | Path]
    url: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A started service. `born` is the process's start in kernel ticks since the `boot` of that id: a pid alone may belong
    to another by now.
    """

    name: str
    pid: int
    born: str
    url: str
    boot: str = ""


@contextmanager
def shared_service(
    folder: Path, name: str, launch: Callable[[int], Launch], healthy: Callable[[str], bool], timeout: float
) -> Iterator[str]:
    """The URL of the service that lives in `folder`, started where it does not run and stopped by its last user.

    The folder is the service's identity: give each model, or each Redis, one of its own. `launch` is given a free
    loopback port and is called only where the service must be started; `healthy` says whether a URL answers, and is
    asked until it does or `timeout` seconds have passed. Its output goes to `service.log`.

    Raises ServiceError with the end of that log where the service ends or stays silent while starting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "users.lock").open("a") as users:
        try:
            yield _enter(folder, users, name, launch, healthy, timeout)
        finally:
            _leave(folder, users)


def stop_unused(folder: Path) -> None:
    """Stop the service that lives in `folder` where nobody uses it: users killed with -9 left it running."""
    if (folder / "service.json").exists():
        with (folder / "users.lock").open("a") as users:
            _leave(folder, users)


def kill_hung(folder: Path, url: str) -> None:
    """Kill the service that lives in `folder`, if it is still the one at `url`: its users find it dead, and start it anew.

    Leaving would not do: it stays for its other users, who are given it as long as it lives.
    """
    if (service := _running(folder)) and service.url == url:
        with suppress(ProcessLookupError):
            os.killpg(service.pid, signal.SIGKILL)


def free_port() -> int:
    """A loopback TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _enter(
    folder: Path,
    users: TextIO,
    name: str,
    launch: Callable[[int], Launch],
    healthy: Callable[[str], bool],
    timeout: float,
) -> str:
    """Become a user: adopt what runs or start it, one process at a time, and wait until it answers."""
    with (folder / "start.lock").open("a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for a last user who is stopping it
        adopted = _running(folder)
        if adopted and _wait(folder, adopted, healthy, timeout):
            return adopted.url
        _end_rest(folder)
        service = _start(folder, starting, name, launch(free_port()))
        if _wait(folder, service, healthy, timeout):
            return service.url
        raise _silent(folder, service, "it ended")


def _wait(folder: Path, service: Running, healthy: Callable[[str], bool], timeout: float) -> bool:
    """True once it answers, False where it has ended. Raises ServiceError where it does neither in time."""
    give_up = time.monotonic() + timeout
    while _born(service.pid) == service.born:
        if healthy(service.url):
            return True
        if time.monotonic() > give_up:
            raise _silent(folder, service, f"it gave no answer in {timeout:.0f} s")
        time.sleep(0.05)
    return False


def _silent(folder: Path, service: Running, what: str) -> ServiceError:
    log = folder / "service.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    shown = "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"
    return ServiceError(
        f"{service.name}: wanted it to answer at {service.url}, but {what}. The end of {log}:\n{shown}\n"
        "Put right what it says there, then run the same command again."
    )


def _leave(folder: Path, users: TextIO) -> None:
    """Stop being a user; stop the service where nobody else is one."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    if service := _running(folder):
        _stop(service)
    _end_rest(folder)
    (folder / "service.json").unlink(missing_ok=True)


def _start(folder: Path, starting: TextIO, name: str, launch: Launch) -> Running:
    """Start it in a session of its own, so that a Ctrl-C meant for its user does not reach it.

    It names itself in `service.json` and holds `starting` until it has: this process may be killed at any moment.
    """
    command = [str(part) for part in launch.command]
    heard, told = os.pipe()
    naming = [sys.executable, "-I", "-S", str(LAUNCHER), str(folder / "service.json"), name, launch.url]
    with (folder / "service.log").open("wb") as log, os.fdopen(heard, encoding="utf-8") as answer:
        try:
            process = subprocess.Popen(
                [*naming, str(starting.fileno()), str(told), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if not name.startswith(OURS)}
                | dict(launch.environment),
                pass_fds=(starting.fileno(), told),
                start_new_session=True,
            )
        finally:
            os.close(told)
        problem = answer.read()
    service = Running(name, process.pid, _born(process.pid) or "", launch.url)
    process.returncode = 0  # it may outlive this process: we reap it by pid (_born), Popen must not mind it
    if problem:
        raise ServiceError(f"{name}: {command[0]} can't be started: {problem}; reinstall it")
    return service


def _running(folder: Path) -> Running | None:
    """What `service.json` names, or None where that process is gone."""
    try:
        service = Running(**json.loads((folder / "service.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    return service if _born(service.pid) == service.born else None


def _stop(service: Running) -> None:
    """End it and its children: politely, and what is left after a grace for certain."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(service.pid, ending)
        give_up = time.monotonic() + GRACE_SECONDS
        while _born(service.pid) == service.born and time.monotonic() < give_up:
            time.sleep(0.02)


def _end_rest(folder: Path) -> None:
    """Kill what a service that died has left of its process group, and wait until it is gone: vLLM's engine outlives its
    server, with its memory.

    While a group has members the kernel gives its number to no new process: where none bears it, they are the service's.
    """
    with suppress(FileNotFoundError):
        service = Running(**json.loads((folder / "service.json").read_text(encoding="utf-8")))
        if service.boot == BOOT.read_text(encoding="utf-8").strip() and _born(service.pid) is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(service.pid, signal.SIGKILL)
                give_up = time.monotonic() + KILLED_SECONDS
                while _has_members(service.pid) and time.monotonic() < give_up:
                    time.sleep(0.02)


def _has_members(group: int) -> bool:
    """Whether a process of the group has not ended. To `killpg` zombies count too, whose parent may never reap them."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            if os.getpgid(int(process.name)) == group and _born(int(process.name)) is not None:
                return True
    return False


def _born(pid: int) -> str | None:
    """When the process started; None where it has ended. Reaps it where it was our child."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, threads, born = fields[0], int(fields[17]), fields[19]
    if state not in "ZX" or threads > 1:  # its first thread has ended, others are still at it
        return born
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return None
