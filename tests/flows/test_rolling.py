"""Students roll with their releases: a real `stillhouse serve` under load while releases switch, and each student by itself."""

import asyncio
import json
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing, contextmanager
from itertools import count

import httpx
import pytest

from cache.client import connect
from cache.layout import SERVERS, bucket_count, entry
from cache.publish import publish
from cache.release import rollback
from cache.server import local_redis
from flows.online import ready_within
from flows.rolling import HeldStudents, student_server
from flows.settings import ROOT, load_settings
from labels.errors import PublishError, ServiceError
from labels.normalise import NORMALISATION_VERSION
from labels.records import Release
from labels.semantic_roles import SemanticRoles
from labels.services import free_port
from tests.flows.command import STILLHOUSE, environment, error_of, stillhouse

HEAD = [f"head number {n}" for n in range(200)]
SAYS = {"plain": "product", "fancy": "brand"}  # which student puts a query's last word where
CALLERS = 6
SECONDS = 60.0  # a hang guard


@contextmanager
def vllm(*models, port=None):
    """A process that stands in for vLLM servers: `http://…/NAME` serves the student NAME, if it is one of `models`."""
    port = port or free_port()
    command = [sys.executable, "-m", "tests.flows.fake_students", str(port), *models]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(f"{url}/health"))
            yield f"{url}/{{student}}", process
        finally:
            process.kill()


def wait_until(happened):
    give_up = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def answers(url):
    """Whether anybody says yes there."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS):
            return True
    except OSError:
        return False


def settings_with(tmp_path, url, **more):
    changes = {"work": str(tmp_path), "serve.student_url": url, "student.start_seconds": 20, **more}
    return load_settings("laptop", changes, {})


def release_of(number, student):
    """A release whose every head answer names it."""
    entries = [(query, entry({"product": "", "brand": f"r{number}", "attributes": []}, 1, "teacher")) for query in HEAD]
    release = Release(
        release=f"r{number}",
        generation=f"g{number}",
        student=student,
        task="semantic_roles",
        night="n",
        task_version=SemanticRoles.version(),
        entries=len(HEAD),
        buckets=bucket_count(len(HEAD)),
        normalisation=NORMALISATION_VERSION,
    )
    return entries, release


async def ask_always(url, over, seen):
    """Ask until it is over, by turns for a head query and one that nobody asked before; every answer as it came."""
    numbers = count()

    async def call(http):
        while not over.is_set():
            number = next(numbers)
            query = HEAD[number // 2 % len(HEAD)] if number % 2 else f"something new {number}"
            response = await http.get("/v1/lookup", params={"q": query})
            seen.append((query, response.status_code, response.json()))
            await asyncio.sleep(0.01)  # the tests beside this one want the processor too

    async with httpx.AsyncClient(base_url=url, timeout=SECONDS, trust_env=False) as http:
        await asyncio.gather(*(call(http) for _ in range(CALLERS)))


def wrong(query, status, answer, students):
    """What is wrong with an answer; "" where nothing is."""
    if status != 200 or answer["source"] not in ("cache", "student"):
        return "no answer"
    if (answer["source"] == "cache") != (query in HEAD):
        return "by the wrong one"
    if answer["source"] == "cache":
        return "" if answer["value"]["brand"] == answer["release"] else "of another release"
    said = answer["value"][SAYS[students[answer["release"]]]]
    return "" if said == query.split()[-1] else "of another release's student"


def test_ten_releases_with_two_students_under_load_and_no_caller_notices(tmp_path):
    """Zero errors, zero answers that mix releases, and none without an answer."""
    students = {f"r{number}": ("plain", "fancy")[number % 2] for number in range(11)}
    with (
        vllm(*SAYS) as (student_url, _),
        local_redis(tmp_path / "redis") as redis_url,
        closing(connect(redis_url)) as redis,
    ):
        settings = settings_with(tmp_path, student_url)
        publish(redis, *release_of(0, students["r0"]))
        port = free_port()
        sets = [f"serve.student_url={student_url}", f"cache.redis_url={redis_url}", "cache.deadline_ms=10000"]
        sets += ["serve.workers=2", "student.start_seconds=1"]
        command = [STILLHOUSE, "serve", "--work", str(tmp_path), "--port", str(port)]
        command += [part for one in sets for part in ("--set", one)]
        over, seen = threading.Event(), []
        with (tmp_path / "said").open("wb") as log:
            server = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=log)
        url = f"http://127.0.0.1:{port}"
        callers = threading.Thread(target=lambda: asyncio.run(ask_always(url, over, seen)))
        try:
            wait_until(lambda: server.poll() is not None or (redis.hlen(SERVERS) == 2 and answers(f"{url}/readyz")))
            assert server.poll() is None, (tmp_path / "said").read_text()
            callers.start()

            def served_on():
                asked = len(seen)
                wait_until(lambda: len(seen) > asked + 50)

            for number in range(1, 11):
                ready = ready_within(settings, redis, lambda _: None)
                publish(redis, *release_of(number, students[f"r{number}"]), kept=3, ready=ready)
                served_on()
            rollback(redis, ready=ready)
            wait_until(lambda: seen[-1][2]["release"] == "r9")
            with pytest.raises(
                PublishError, match=r"process \d+: can't get student unknown ready: .* a server of plain, fancy"
            ):
                publish(redis, *release_of(11, "unknown"), ready=ready)
            served_on()
        finally:
            over.set()
            callers.join() if callers.ident else None
            server.terminate()
            code = server.wait(SECONDS)
        said = (tmp_path / "said").read_text()
        assert code == 0, said
        assert not redis.hlen(SERVERS)
    problems = [(query, status, answer) for query, status, answer in seen if wrong(query, status, answer, students)]
    assert not problems, (len(problems), len(seen), problems[:3], said)
    assert {answer["release"] for _, _, answer in seen} == students.keys()
    assert "Traceback" not in said
    assert all("event" in json.loads(line) for line in said.splitlines()), "standard error is the log's alone"


def test_a_student_that_dies_is_found_out_and_held_again_when_it_is_back(tmp_path):
    async def live(url, port, process):
        said = []
        async with HeldStudents(settings_with(tmp_path, url), said.append) as students:
            await students.hold("plain")
            assert json.loads((await students.clients["plain"].ask("red milk"))[0])["product"] == "milk"
            process.kill()
            while students.ready:
                await asyncio.sleep(0.05)
            assert "plain died" in said[0]
            assert "plain" in students.clients, "its breaker has nobody to ask"
            with vllm("plain", port=port):
                await students.hold("plain")
                assert students.ready == {"plain"}
                assert json.loads((await students.clients["plain"].ask("red milk"))[0])["product"] == "milk"
                await students.let_go("plain")
                assert not students.held

    port = free_port()
    with vllm("plain", port=port) as (url, process):
        asyncio.run(asyncio.wait_for(live(url, port, process), SECONDS))


def test_a_server_that_serves_another_student_or_nobody_is_named(tmp_path):
    with vllm("plain") as (url, _):
        with pytest.raises(ServiceError, match=r"student fancy at http://.*/fancy, got: a server of plain; start it"):
            student_server(settings_with(tmp_path, url), "fancy").__enter__()
        with student_server(settings_with(tmp_path, url + "/v1/"), "plain") as found:
            assert found == url.replace("{student}", "plain")
    with pytest.raises(ServiceError, match=r"at http://127\.0\.0\.1:1, got: ConnectError") as refused:
        student_server(settings_with(tmp_path, "http://ana:hunter2@127.0.0.1:1"), "plain").__enter__()
    assert "hunter2" not in str(refused.value)


def test_a_student_whose_folder_is_gone_is_said_so_and_starts_nothing(tmp_path):
    with pytest.raises(ServiceError, match=r"wanted student gone in .*students, got none with a manifest"):
        student_server(load_settings("laptop", {"work": str(tmp_path)}, {}), "gone").__enter__()
    assert not (tmp_path / "services").exists()


def test_serve_refuses_to_start_without_the_student_and_says_why(tmp_path):
    with local_redis(tmp_path / "redis") as redis_url, closing(connect(redis_url)) as redis:
        publish(redis, *release_of(1, "gone"))
        done = stillhouse("serve", "--work", tmp_path, "--port", free_port())
    assert "wanted student gone in" in error_of(done)
