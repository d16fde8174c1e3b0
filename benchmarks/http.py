"""Lookups over HTTP against a bare ASGI app on the same server that does one Redis GET a request, loaded by wrk.

Both run on uvicorn with the same settings, one worker, on a core of its own, and answer the same Zipf-drawn queries over the
same entries, by turns. The bare app's answers lie ready in Redis, one string a query, which it fetches and sends. Ours is
`stillhouse serve` as it is. CPU is the server's own, a request, by /proc. Beside them: POSTs of 64 queries, and the bare app
written in FastAPI.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from urllib.parse import quote_plus, urlencode

import httpx

from benchmarks import bare
from benchmarks.online import ENTRIES, free_port, make_entries, private_redis, release_of, traffic
from benchmarks.processes import Server, listens, running, spread_cores
from benchmarks.service import service, students
from benchmarks.wrk import Measured, walk, wrk_binary
from cache.client import connect
from cache.layout import parse_entry
from cache.publish import publish
from labels.semantic_roles import SemanticRoles

CALLERS = 32
BATCH = 64
ASKED = 200_000
BATCHES = 2_000
COMPARED = 200
WARM_SECONDS = 5.0
CHUNK = 5_000


@dataclass(frozen=True)
class Contender:
    """A server that runs, and what wrk asks of it."""

    server: Server
    asked: Path
    method: Literal["GET", "POST"] = "GET"


@dataclass(frozen=True)
class Turn:
    """What a contender did in one round: what wrk saw, and the server's CPU seconds."""

    wrk: Measured
    cpu: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds a request."""
        return self.cpu / self.wrk.requests * 1e6


def run(entries: int = ENTRIES, rounds: int = 7, seconds: float = 5.0) -> dict[str, Any]:
    """Ratios of ours to the bare app's, medians over the rounds with the least and the greatest, and what they come from.

    Requests a second (`http_vs_asgi`), CPU a request (`http_cpu_vs_asgi`) and 99th percentile of latency at 32 callers
    (`http_p99_vs_asgi`); `http_batch_vs_gets` is queries a second of POSTs of 64 over that of GETs.
    """
    wrk_binary()  # say that it is missing before the long part
    server, loader, store = spread_cores(3)
    with TemporaryDirectory() as folder, private_redis() as redis_url, ExitStack() as stack:
        work = Path(folder)
        _told(f"writing {entries:,} entries")
        queries = _fill(redis_url, entries, store)
        gets, posts = _write_asked(work, queries)
        student = stack.enter_context(running(students(work)))
        ours = stack.enter_context(running(service(work, redis_url, student.url, cores=server)))
        plain = stack.enter_context(running(_bare("asgi", work, redis_url, server)))
        fast = stack.enter_context(running(_bare("fastapi", work, redis_url, server)))
        _compare(ours.url, plain.url, traffic(queries, COMPARED, seed=1))
        contenders = {
            "ours": Contender(ours, gets),
            "asgi": Contender(plain, gets),
            "fastapi": Contender(fast, gets),
            "batch": Contender(ours, posts, "POST"),
        }
        turns = _rounds(contenders, rounds, seconds, loader)
    return _figures(turns) | {"entries": entries, "rounds": rounds}


def _rounds(contenders: dict[str, Contender], rounds: int, seconds: float, cores: str) -> dict[str, list[Turn]]:
    """Each contender's turns, after one that warms it; each round begins with another one."""
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    for contender in contenders.values():
        _turn(contender, WARM_SECONDS, cores)
    order = list(contenders)
    for n in range(rounds):
        _told(f"round {n + 1} of {rounds}")
        for name in order[n % len(order) :] + order[: n % len(order)]:
            turns[name].append(_turn(contenders[name], seconds, cores))
    return turns


def _turn(contender: Contender, seconds: float, cores: str) -> Turn:
    before = contender.server.cpu_seconds()
    measured = walk(contender.server.url, contender.asked, seconds, CALLERS, contender.method, cores)
    return Turn(measured, contender.server.cpu_seconds() - before)


def _figures(turns: dict[str, list[Turn]]) -> dict[str, Any]:
    def ratios(name: str, other: str, of: Callable[[Turn], float]) -> Iterator[float]:
        return (of(one) / of(two) for one, two in zip(turns[name], turns[other], strict=True))

    def median(name: str, of: Callable[[Turn], float]) -> float:
        return statistics.median(map(of, turns[name]))

    figures = _spread("http_vs_asgi", ratios("ours", "asgi", lambda turn: turn.wrk.rate))
    figures |= _spread("http_cpu_vs_asgi", ratios("ours", "asgi", lambda turn: turn.cpu_us))
    figures |= _spread("http_p99_vs_asgi", ratios("ours", "asgi", lambda turn: turn.wrk.p99_ms))
    batch = (BATCH * ratio for ratio in ratios("batch", "ours", lambda turn: turn.wrk.rate))
    figures |= _spread("http_batch_vs_gets", batch)
    figures |= _spread("fastapi_vs_asgi", ratios("fastapi", "asgi", lambda turn: turn.wrk.rate))
    for name in turns:
        figures |= {
            f"{name}_per_s": round(median(name, lambda turn: turn.wrk.rate)),
            f"{name}_cpu_us": round(median(name, lambda turn: turn.cpu_us), 1),
            f"{name}_p50_ms": round(median(name, lambda turn: turn.wrk.p50_ms), 2),
            f"{name}_p99_ms": round(median(name, lambda turn: turn.wrk.p99_ms), 2),
            f"{name}_errors": sum(turn.wrk.errors for turn in turns[name]),
        }
    return figures


def _spread(name: str, ratios: Iterator[float]) -> dict[str, float]:
    found = list(ratios)
    return {
        name: round(statistics.median(found), 3),
        f"{name}_least": round(min(found), 3),
        f"{name}_greatest": round(max(found), 3),
    }


def _fill(url: str, entries: int, cores: str) -> list[str]:
    """Publish the entries, and lay them down for the bare app too; gives their queries, the most frequent first."""
    made = make_entries(entries)
    fields = tuple(SemanticRoles.model_fields)
    with closing(connect(url)) as client:
        if cores:
            os.sched_setaffinity(client.info("server")["process_id"], {int(cores)})
        publish(client, made, release_of(entries))
        for first in range(0, entries, CHUNK):
            rows = made[first : first + CHUNK]
            client.mset(
                {bare.KEY + query: SemanticRoles(**parse_entry(raw, fields).value).to_json() for query, raw in rows}
            )
    return [query for query, _ in made]


def _write_asked(work: Path, queries: Sequence[str]) -> tuple[Path, Path]:
    """The files that wrk walks: paths to GET, and bodies to POST."""
    gets, posts = work / "gets.txt", work / "posts.txt"
    gets.write_text("".join(f"/v1/lookup?q={quote_plus(query)}\n" for query in traffic(queries, ASKED)))
    drawn = traffic(queries, BATCHES * BATCH, seed=2)
    bodies = ({"queries": drawn[first : first + BATCH]} for first in range(0, len(drawn), BATCH))
    posts.write_text("".join(f"{json.dumps(body, ensure_ascii=False)}\n" for body in bodies))
    return gets, posts


def _compare(ours: str, plain: str, queries: Sequence[str]) -> None:
    """Both servers say the same of the same queries, else nothing is worth measuring."""
    for query in queries:
        path = "/v1/lookup?" + urlencode({"q": query})
        told, wanted = (httpx.get(url + path, trust_env=False).raise_for_status().json() for url in (ours, plain))
        if told["source"] != "cache" or told["value"] != wanted:
            raise RuntimeError(f"the servers differ on {query!r}: {told} and {wanted}")


def _bare(kind: str, work: Path, redis_url: str, cores: str) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.bare", kind, redis_url, port]
    return Server(command, work / f"{kind}.log", f"http://127.0.0.1:{port}", lambda: listens(port), cores)


def _told(what: str) -> None:
    sys.stderr.write(f"{what}\n")
