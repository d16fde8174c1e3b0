"""Several vLLM replicas under Ray Data: on this machine, or on all those of a Ray cluster.

Ray Data starts the replicas, one actor each, watches them and streams their completions back. Prompts go to each
replica by a queue of its own, so they are taken as they are needed, and a replica's batch never runs empty between two
blocks; models are loaded once for any number of `complete`.
"""

import json
import logging
import os
import socket
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from labels.errors import EngineError
from labels.models import model_identity
from labels.task import Task
from teacher.engine import IN_FLIGHT, Completion, Prompt, Sample, Sampling, identity_with

BLOCK = 64
"""Prompts sent to a replica at once."""
GROUP = 32
"""Completions sent back at once: a message costs Ray some milliseconds."""
AHEAD = 2 * IN_FLIGHT
"""Prompts a replica has before it: those its vLLM is at, and enough beside to take without waiting."""
LOCAL_OBJECT_STORE = 128 * 2**20
"""Bytes of shared memory for what is under way on this machine: a few thousand prompts and completions."""


class RayEngine:
    """`replicas` offline engines (`VllmEngine`), each asked as it would be alone.

    Up to AHEAD prompts a replica are taken ahead of the completions given. Where one replica ends, all end: nothing is
    started again behind the user's back.
    """

    def __init__(
        self,
        model: str,
        revision: str | None,
        sampling: Sampling,
        options: dict[str, Any],
        replicas: int,
        address: str | None,
    ) -> None:
        """`options` as `VllmEngine` takes them; `address` of a running Ray cluster, None for this machine alone.

        Raises EngineError where Ray or a replica can't be started, and where the cluster is too small.
        """
        self.model = identity_with(model_identity(model, revision), sampling)
        self.answered = [0] * replicas
        """How many completions each replica gave."""
        self._prefix = [(0, 0)] * replicas
        self._queues: list[Any] = []
        self._rows: Any = None  # Ray Data's generator of the replicas' messages
        self._ours = _join(address, replicas)
        try:
            self._start((model, revision, sampling, options), replicas, _gpus_each(replicas, options))
        except BaseException:
            self.close()
            raise

    def complete(self, task: type[Task], prompts: Iterable[Prompt]) -> Iterator[Completion]:
        """One completion a prompt, in the order they finish (see `Engine`).

        The engine can be asked again once this has ended; where it is left midway, the engine is closed.
        """
        if not self._queues:
            raise EngineError("the teacher's engine is closed")
        waiting, ahead, running, more = iter(prompts), [0] * len(self._queues), len(self._queues), True
        try:
            self._tell_all(task)
            while running:
                while more and min(ahead) <= AHEAD - BLOCK:
                    idlest = ahead.index(min(ahead))
                    block = list(islice(waiting, BLOCK))
                    self._queues[idlest].put(block)
                    ahead[idlest] += len(block)
                    if len(block) < BLOCK:
                        more = False
                        self._tell_all(None)
                replica, completions = self._hear()
                ahead[replica] -= len(completions)
                self.answered[replica] += len(completions)
                running -= not completions
                yield from completions
        except BaseException:
            self.close()  # what is under way belongs to nobody any more
            raise

    def prefix_cache(self) -> tuple[int, int]:
        """Prompt tokens found in the replicas' prefix caches and all looked up, as of the last `complete`'s end."""
        return sum(hits for hits, _ in self._prefix), sum(looked_up for _, looked_up in self._prefix)

    def close(self) -> None:
        """Free what the replicas hold; stop Ray where this engine started it."""
        import ray

        queues, self._queues = self._queues, []
        if self._rows:
            self._rows.close()
        for queue in queues:
            queue.shutdown(force=True)  # a replica that can't be told anything any more ends
        if self._ours:
            self._ours = False
            ray.shutdown()

    def _start(self, engine: tuple[object, ...], replicas: int, gpus: int) -> None:
        """Start the replicas and wait until all have loaded their model."""
        import ray.data
        from ray.util.annotations import RayDeprecationWarning
        from ray.util.queue import Queue

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what goes wrong becomes an error of ours
        self._queues = [Queue(actor_options={"num_cpus": 0}) for _ in range(replicas)]
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # each row streams back as soon as it is there
        with ray.data.DataContext.current(context), warnings.catch_warnings():
            warnings.simplefilter("ignore", RayDeprecationWarning)  # max_restarts has no other name yet
            dataset = ray.data.range(replicas, override_num_blocks=replicas).map_batches(
                Replica,
                fn_constructor_args=(engine, self._queues),
                batch_size=1,
                num_gpus=gpus,
                max_restarts=0,
                # One at a time: each replica's call lasts as long as the engine, so each actor gets exactly one.
                compute=ray.data.ActorPoolStrategy(size=replicas, max_tasks_in_flight_per_actor=1),
            )
            self._rows = iter(dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"))
            for _ in range(replicas):
                self._hear()

    def _tell_all(self, message: type[Task] | None) -> None:
        for queue in self._queues:
            queue.put(message)

    def _hear(self) -> tuple[int, list[Completion]]:
        """The next message: which replica, and its completions; none where it is ready for a task (again)."""
        try:
            [row] = next(self._rows).to_pylist()
        except Exception as error:
            raise EngineError(_told(error)) from error
        replica, message = row["replica"], json.loads(row["message"])
        if not message["completions"]:
            self._prefix[replica] = tuple(message["prefix_cache"])
        return replica, [_completion(one) for one in message["completions"]]


class Replica:
    """One vLLM engine in an actor of Ray Data's."""

    def __init__(self, engine: tuple[Any, ...], queues: list[Any]) -> None:
        from teacher.engine_vllm import VllmEngine

        self._engine, self._queues = VllmEngine(*engine), queues

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[object]]]:
        """Serve as the replica of the number in `batch` until its queue is gone: messages as `RayEngine` hears them."""
        number = int(batch["id"][0])
        queue, group = self._queues[number], list[dict[str, object]]()

        def message() -> dict[str, list[object]]:
            said = {"completions": group, "prefix_cache": self._engine.prefix_cache()}
            row: dict[str, list[object]] = {"replica": [number], "message": [json.dumps(said)]}
            group.clear()
            return row

        while True:
            yield message()  # ready
            for completion in self._engine.complete(queue.get(), _prompts(queue)):
                group.append(asdict(completion))
                if len(group) == GROUP:
                    yield message()
            if group:
                yield message()


def _prompts(queue: Any) -> Iterator[Prompt]:  # noqa: ANN401 - Ray's Queue, not imported at load time
    for block in iter(queue.get, None):
        yield from block


def _completion(found: dict[str, Any]) -> Completion:
    samples = [Sample(one["text"], tuple(map(tuple, one["pieces"])), one["finished"]) for one in found["samples"]]
    return Completion(**{**found, "samples": tuple(samples)})


def _join(address: str | None, replicas: int) -> bool:
    """Connect to Ray, or start it on this machine, on loopback; False where this process was connected already."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # nothing of what Ray's processes say is printed here
    import ray

    if ray.is_initialized():
        return False
    if address and address.count(":") == 1:
        _check_address(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    local: dict[str, Any] = {
        "num_cpus": replicas + 2,  # only counted, not bound
        "include_dashboard": False,
        "object_store_memory": LOCAL_OBJECT_STORE,
        "_node_ip_address": "127.0.0.1",
    }
    try:
        ray.init(address or "local", **quiet, **({} if address else local))
    except Exception as error:
        where = f"connect to the cluster at {address}" if address else "start on this machine"
        raise EngineError(f"Ray could not {where}: {error}. Look at teacher.ray_address, or at `ray status`") from error
    return True


def _check_address(address: str) -> None:
    """Ray itself would try for many minutes."""
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise EngineError(
            f"teacher.ray_address: wanted HOST:PORT of a Ray cluster's head, but {address} can't be reached ({error}). "
            "`ray start --head` there, or leave it out to use this machine alone"
        ) from None


def _gpus_each(replicas: int, options: dict[str, Any]) -> int:
    """GPUs a replica takes, all on one machine; 0 where the cluster has none.

    Raises EngineError where the replicas don't fit: Ray would wait for more machines for ever.
    """
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = [int(machine.get("GPU", 0)) for machine in machines]
    each = int(options.get("tensor_parallel_size", 1)) * int(options.get("pipeline_parallel_size", 1))
    if not any(gpus):
        each, room = 0, sum(int(machine.get("CPU", 0)) for machine in machines) - 1
    else:
        room = sum(held // each for held in gpus)
    if room < replicas:
        raise EngineError(
            f"teacher.replicas = {replicas}, but Ray has room for {room} with {f'{each} GPUs each' if each else 'a CPU each'}"
            f" on its {len(machines)} machines; lower it, or start Ray on more machines (`ray start --address=…`)"
        )
    return each


def _told(error: Exception) -> str:
    """What Ray says of a replica that ended, in one line: its own last words, where it had any."""
    from ray.exceptions import RayActorError

    _, own, words = str(error).rpartition(f"{EngineError.__module__}.{EngineError.__qualname__}: ")
    if own:
        return " ".join(words.partition("Failed to apply UDF")[0].split())  # what follows is Ray's advice on retries
    how = (
        "its process was killed or crashed" if isinstance(error, RayActorError) else f"{type(error).__name__}: {error}"
    )
    return (
        f"a vLLM replica under Ray ended: {' '.join(how.split())}. Look at /tmp/ray/session_latest/logs on its machine; "
        "where memory was short lower teacher.replicas; then run the same command again"
    )
