"""What a process does that labels under Ray, for the tests: python -m tests.teacher.ray_labelling WHAT FILE

Its results go to FILE as JSON. Nothing but the project's own words may reach its output, and there are none here.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from itertools import count
from pathlib import Path

from demo.shop import make_shop
from flows.environment import prepare
from flows.settings import load_settings
from labels.errors import EngineError
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from teacher.engine import Prompt, Sampling
from teacher.engine_ray import RayEngine


def asked(number=200):
    queries = [row["query"] for row in make_shop(brands=20, products=120, queries=number).pool.to_pylist()]
    queries[7] = "word " * 2000
    return [Prompt(query, messages(SemanticRoles, query), 64) for query in queries]


def start(replicas=2, address=None, **options):
    teacher = load_settings("laptop", {}, {}).teacher
    return RayEngine(teacher.model, None, Sampling(64), {**teacher.engine, **options}, replicas, address)


def label():
    """Label all, label some again, then lose a replica."""
    engine = start()
    first = [asdict(one) for one in engine.complete(SemanticRoles, iter(asked()))]
    answered, prefix_cache = list(engine.answered), engine.prefix_cache()
    again = [asdict(one) for one in engine.complete(SemanticRoles, iter(asked()[:5]))]
    none = list(engine.complete(SemanticRoles, []))
    given = engine.complete(SemanticRoles, endless([]))
    before = [next(given).key for _ in range(100)]
    [victim, _] = workers()
    os.kill(victim, signal.SIGKILL)
    return {
        "first": first, "answered": answered, "prefix_cache": prefix_cache, "again": again, "none": none,
        "before": before, "died": error_of(lambda: list(given)), "left": left(),
        "closed": error_of(lambda: list(engine.complete(SemanticRoles, []))),
    }  # fmt: skip


def refuse():
    """Ask for what can't be had, then leave off midway under a Ray that somebody else started."""
    import ray

    errors = {"address": error_of(lambda: start(address="127.0.0.1:1"))}
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    errors["options"] = error_of(lambda: start(replicas=1, no_such_option=1))
    errors["room"] = error_of(lambda: start(replicas=4))
    engine, taken = start(replicas=1), []
    given = engine.complete(SemanticRoles, endless(taken))
    seen = [next(given).key for _ in range(3)]
    given.close()
    closed = error_of(lambda: list(engine.complete(SemanticRoles, [])))
    return errors | {
        "seen": seen, "ahead": len(taken) - 3, "closed": closed, "left": left(), "connected": ray.is_initialized()
    }  # fmt: skip


def endless(taken):
    for number in count():
        taken.append(number)
        yield Prompt(str(number), messages(SemanticRoles, f"milk {number}"), 64)


def error_of(does):
    try:
        does()
    except EngineError as error:
        return str(error)
    return None


def workers():
    """The processes of this one's replicas."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::MapWorker(MapBatches(Replica))") and MARK.encode() in environment:
            found.append(int(process.name))
    return found


def left():
    """What is left of the replicas and their threads, given a moment to go."""
    give_up = time.monotonic() + 60
    while workers() and time.monotonic() < give_up:
        time.sleep(0.1)
    return [*workers(), *[thread.name for thread in threading.enumerate() if not thread.daemon][1:]]


MARK = f"STILLHOUSE_TEST_OF={os.getpid()}"

if __name__ == "__main__":
    os.environ["STILLHOUSE_TEST_OF"] = str(os.getpid())
    prepare(offline=True)
    result = {"label": label, "refuse": refuse}[sys.argv[1]]()
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
