import asyncio
import json
import mmap
import os
import re
import signal
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from starlette.applications import Starlette

from cache import serve
from cache.http import create_app
from cache.serve import run
from labels.errors import BusyError, ServiceError
from labels.services import free_port
from tests.cache.serving import LEFT, ended, serving
from tests.cache.shop import publish_queries
from tests.cache.test_metrics import read


def logged(printed):
    """The events of a log, which has nothing in it but JSON lines and what the service's process prints at its end."""
    assert printed[-1] == LEFT
    return [json.loads(line) for line in printed[:-1]]


@pytest.mark.parametrize(("ending", "log_queries"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_it_leaves_well_and_logs_no_query_unless_told(client, redis_url, ending, log_queries):
    publish_queries(client, 1, "milk")
    with serving(redis_url, log_queries=log_queries) as (http, process):
        http.get("/v1/lookup", params={"q": "a private query"})
        refused = http.get("/v1/lookup", params={"q": "a private query\0"}, headers={"x-request-id": "mine"})
        http.get("/nothing?q=private")
        printed = ended(process, ending)
    assert refused.status_code == 400
    events = logged(printed)
    assert [event["event"] for event in events] == ["start", "ready", "failed", "failed", "drain", "stop"]
    assert events[1]["release"] == "r1"
    assert (events[2]["status"], events[2]["id"]) == (400, "mine")
    assert ("private" in "".join(printed)) == log_queries


def test_what_is_in_flight_is_answered_while_it_drains(client, redis_url, tmp_path):
    publish_queries(client, 1, "milk")
    gate = tmp_path / "gate"
    with (
        serving(redis_url, gate=str(gate), drain_seconds=30.0) as (http, process),
        ThreadPoolExecutor(1) as asking,
    ):
        slow = asking.submit(httpx.get, f"{http.base_url}/v1/lookup?q=slow", timeout=60)
        until(lambda: read(fresh(http, "/metrics"))["student_in_flight",])
        process.send_signal(signal.SIGTERM)
        while (ready := http.get("/readyz")).status_code == 200:  # it goes on listening for three seconds
            time.sleep(0.02)
        assert "about to end" in ready.json()["reason"]
        assert ready.headers["connection"] == "close"
        assert http.get("/v1/lookup?q=milk").json()["source"] == "cache"
        until(lambda: not connects(http.base_url.port))
        assert not slow.done()
        gate.touch()
        assert slow.result().json()["source"] == "student"
        assert process.wait(60) == 0


def test_a_release_that_comes_and_one_that_follows_are_logged(client, redis_url):
    with serving(redis_url) as (_, process):
        printed = []
        for number in (1, 2):
            publish_queries(client, number, "milk")
            printed += read_until(process, "ready", 1)
        events = logged(printed + ended(process))
    assert [event.get("release") for event in events if event["event"] == "ready"] == ["r1", "r2"]


def connects(port):
    """Whether anybody listens there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60):
        return True
    return False


def test_nobody_is_let_in_who_would_only_wait_for_the_end(client, redis_url, tmp_path):
    """Of several processes too, while one still answers somebody."""
    publish_queries(client, 1, "milk")
    gate = tmp_path / "gate"
    with (
        serving(redis_url, gate=str(gate), workers=2, drain_seconds=10.0) as (http, process),
        ThreadPoolExecutor(1) as asking,
    ):
        slow = asking.submit(httpx.get, f"{http.base_url}/v1/lookup?q=slow", timeout=60)
        until(lambda: any(one["student_in_flight",] for one in figures(http)))
        process.send_signal(signal.SIGTERM)
        until(lambda: not connects(http.base_url.port))
        assert not slow.done()
        gate.touch()
        assert slow.result().json()["source"] == "student"
        assert process.wait(60) == 0


def closed(connection):
    """Whether the other side ends the connection; by then it may have been sent what nobody reads."""
    with suppress(ConnectionError):
        return connection.recv(1) == b""
    return True


def finds_nothing(port):
    """Whether a server of no paths answers there."""
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/", timeout=60).status_code == 404
    return False


def test_a_connection_without_a_whole_request_is_closed():
    """One that says nothing, one that stops within a request's head, one that never comes to its end."""
    port = free_port()
    child = os.fork()
    if not child:
        serve.KEEP_ALIVE_SECONDS = serve.HEAD_SECONDS = 0.4
        run(Starlette, port=port)
        os._exit(0)
    try:
        until(lambda: connects(port))
        silent, half, slow = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(3)]
        half.sendall(b"GET / HT")
        with suppress(ConnectionError):
            for sent in range(200):
                slow.sendall(b"x: y\r\n" if sent else b"GET / HTTP/1.1\r\n")
                time.sleep(0.05)
            pytest.fail("it may go on for ever")
        assert [closed(silent), closed(half)] == [True, True]
        until(lambda: finds_nothing(port))
    finally:
        os.kill(child, signal.SIGINT)
        assert os.waitpid(child, 0)[1] == 0


def never():
    raise AssertionError("the port is looked at before anything is started")


def test_a_port_in_use_is_said_before_anything_starts():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BusyError, match=rf"port {port} of 127\.0\.0\.1 is taken.*--port"):
            run(never, port=port)


def test_a_port_that_another_takes_while_the_app_starts_is_not_shared_with_it():
    port, others = free_port(), []

    def make_app():
        others.append(socket.create_server(("127.0.0.1", port)))
        return Starlette()

    with pytest.raises(BusyError, match=rf"port {port} of 127\.0\.0\.1 is taken"):
        run(make_app, port=port)
    others[0].close()


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("no.such.host.invalid", 0), ("127.0.0.1", 70_000)])
def test_an_address_that_cannot_be_listened_on_is_one_clear_error(host, port):
    with pytest.raises(ServiceError, match=re.escape(f"can't listen on {host}, port {port}")):
        run(never, host, port)


def failing():
    raise ServiceError("wanted vLLM, got none; run `make install`")


@pytest.mark.parametrize("make_app", [failing, lambda: create_app(failing)])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_fails_at_the_start_is_raised_as_it_is(capfd, make_app, workers):
    with pytest.raises(ServiceError, match=r"^wanted vLLM, got none; run `make install`$"):
        run(make_app, port=free_port(), workers=workers)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_plain_app_is_served_too(redis_url):
    """The review page, say, which has no drain of ours."""
    port, app = free_port(), Starlette()
    child = os.fork()
    if not child:
        run(lambda: app, port=port)
        os._exit(0)
    until(lambda: finds_nothing(port))
    os.kill(child, signal.SIGINT)
    assert os.waitpid(child, 0)[1] == 0


def workers_of(process):
    """The processes it started."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
        return [int(pid) for pid in children.read().split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as state:
            return state.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def fresh(http, path):
    """An answer over a connection of its own: any worker may take it."""
    with urllib.request.urlopen(f"{http.base_url}{path}", timeout=60) as answer:
        return answer.read().decode()


def figures(http):
    """What /metrics says over ten connections."""
    return [read(fresh(http, "/metrics")) for _ in range(10)]


def read_until(process, event, times):
    """The lines a service has printed, up to the one that tells of an event for the nth time."""
    printed = []
    while times:
        printed.append(process.stdout.readline().removesuffix("\n"))
        times -= json.loads(printed[-1])["event"] == event
    return printed


def until(true):
    """Wait for something."""
    give_up = time.monotonic() + 120
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_several_processes_serve_one_port_and_one_that_dies_is_replaced(client, redis_url):
    publish_queries(client, 1, "milk")
    with serving(redis_url, workers=3) as (http, process):
        pids = workers_of(process)
        assert len(pids) == 3
        until(lambda: all(one.get(("release", "g1", "r1", "s1")) == 3 for one in figures(http)))
        for _ in range(30):
            assert '"cache"' in fresh(http, "/v1/lookup?q=milk")

        def told():
            """Whether the others know all that the one to die has counted: it stands still while they are asked."""
            os.kill(pids[0], signal.SIGSTOP)
            found = {one["answer_seconds_count", "cache"] for one in figures(http)}
            os.kill(pids[0], signal.SIGCONT)
            return found == {30}

        until(told)
        os.kill(pids[0], signal.SIGKILL)
        for _ in range(20):
            assert '"cache"' in fresh(http, "/v1/lookup?q=milk")  # the others go on
        until(lambda: len([pid for pid in workers_of(process) if alive(pid)]) == 3)
        until(lambda: {one["answer_seconds_count", "cache"] for one in figures(http)} == {50})
        pids = workers_of(process)
        printed = read_until(process, "ready", 4)  # the fourth is the new one's
        events = logged(printed + ended(process))
    assert not any(alive(pid) for pid in pids)
    [died] = [event for event in events if event["event"] == "worker died"]
    assert died["worker"] == 0
    assert [event["event"] for event in events].count("stop") == 3


class Ends:
    """What tells its process to end when it is collected."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.getsignal(signal.SIGTERM)  # a call, at which Python takes the signal


def test_an_end_that_comes_amid_a_destructor_while_it_starts_is_not_lost():
    """An exception raised there is printed and forgotten."""
    started = mmap.mmap(-1, 1)

    @asynccontextmanager
    async def lifespan(_):
        Ends()
        await asyncio.sleep(0.1)
        started[0] = 1
        yield

    child = os.fork()
    if not child:
        run(lambda: Starlette(lifespan=lifespan), port=free_port())
        os._exit(0)
    ended = threading.Timer(60, os.kill, (child, signal.SIGKILL))
    ended.start()
    assert os.waitpid(child, 0)[1] == 0
    ended.cancel()
    assert not started[0]


def test_the_workers_leave_when_their_supervisor_is_killed(client, redis_url):
    with serving(redis_url, workers=2) as (_, process):
        pids = workers_of(process)
        process.kill()
        until(lambda: not any(alive(pid) for pid in pids))
