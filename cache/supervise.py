"""Several processes on one listening socket, each a server of its own; one that dies is started anew."""

import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from cache.log import note
from cache.serve import ENDINGS, MakeApp, work
from cache.shared import Shared
from labels import services
from labels.errors import ServiceError, StillhouseError
from labels.signals import sigterm_as_ctrl_c

POLL = 0.1
PAUSE_SECONDS = 1.0  # between two starts of one worker: one that dies at once would keep a core busy
GRACE_SECONDS = services.GRACE_SECONDS + 5.0  # for the app's end, after draining: a student that hangs is killed
READY = b"ready\n"
FAILED = 3  # the exit code of a worker that has said why it could not start


@dataclass(slots=True)
class _Worker:
    """A worker process, what it has told over its pipe so far, and when it was started (time.monotonic)."""

    number: int
    pid: int
    heard: int
    born: float
    told: bytes = b""


def supervise(make_app: MakeApp, bound: socket.socket, workers: int, drain_seconds: float) -> None:
    """Keep `workers` processes serving until SIGINT or SIGTERM, then let them drain, and return.

    Raises ServiceError where one of the first can't start, with what it said.
    """
    shared, ending = Shared(workers), list[int]()
    lifeline, held = os.pipe()  # closed by our end, however we end: the workers then leave

    def start(number: int) -> _Worker:
        heard, telling = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(
            signal.SIG_BLOCK, ENDINGS
        )  # until the worker can take them: it has our handlers at first
        if pid := os.fork():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
            os.close(telling)
            os.set_blocking(heard, False)
            return _Worker(number, pid, heard, time.monotonic())
        os.close(held)  # in the worker: whatever happens, it never returns into its parent's code
        _be_worker(lambda ready: work(make_app, bound, shared, number, drain_seconds, ready, lifeline), telling)

    before = {one: signal.signal(one, lambda number, _: ending.append(number)) for one in ENDINGS}
    alive: list[_Worker] = []
    try:
        alive.extend(start(number) for number in range(workers))
        while not ending:
            time.sleep(POLL)
            alive = [_tend(worker, start) for worker in alive]
    finally:
        bound.close()  # while anybody holds it, whoever connects is let in, and waits for the end
        _end(alive, signal.SIGTERM, drain_seconds + GRACE_SECONDS)
        _end(alive, signal.SIGKILL, GRACE_SECONDS)
        os.close(lifeline)
        os.close(held)
        for one, handler in before.items():
            signal.signal(one, handler)


def _be_worker(serve: Callable[[Callable[[], None]], None], telling: int) -> NoReturn:
    """Serve in this process, a child of the supervisor, and end it."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with sigterm_as_ctrl_c():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
            serve(lambda: _tell(telling, READY))
        code = 0
    except KeyboardInterrupt:
        code = 0
    except StillhouseError as error:
        _tell(telling, str(error).encode())
        code = FAILED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell(telling: int, what: bytes) -> None:
    with suppress(BrokenPipeError):
        os.write(telling, what)


def _tend(worker: _Worker, start: Callable[[int], _Worker]) -> _Worker:
    """The worker, or the one started in its place. Raises ServiceError where it died before it was ready."""
    with suppress(BlockingIOError):
        worker.told += os.read(worker.heard, 65_536)
    if not _ended(worker):
        return worker
    with suppress(BlockingIOError):
        worker.told += os.read(worker.heard, 65_536)
    os.close(worker.heard)
    if READY not in worker.told:
        said = worker.told.decode(errors="replace") or "a worker ended before it was ready; see what it printed above"
        raise ServiceError(said)
    note("worker died", logging.ERROR, told={"worker": worker.number, "died": worker.pid})
    time.sleep(max(0.0, worker.born + PAUSE_SECONDS - time.monotonic()))
    new = start(worker.number)
    new.told = READY  # whether the service can start at all has been seen
    return new


def _ended(worker: _Worker) -> bool:
    """Whether the process has ended; asked again, it still has."""
    try:
        return os.waitpid(worker.pid, os.WNOHANG)[0] == worker.pid
    except ChildProcessError:
        return True


def _end(workers: list[_Worker], how: int, seconds: float) -> None:
    """Signal those that live, and wait until they have ended, so many seconds at most."""
    for worker in workers:
        if not _ended(worker):
            os.kill(worker.pid, how)
    give_up = time.monotonic() + seconds
    while not all(_ended(worker) for worker in workers) and time.monotonic() < give_up:
        time.sleep(POLL / 4)
