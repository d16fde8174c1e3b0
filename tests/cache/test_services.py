import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from labels.errors import ServiceError
from labels.services import Launch, kill_hung, shared_service


def web(port):
    """A real service: Python's own web server, which also says which process it is."""
    return Launch([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], f"http://127.0.0.1:{port}/")


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def using(folder, launch=web, timeout=20.0):
    return shared_service(folder, "the web server", launch, answers, timeout)


def pid_of(folder):
    return json.loads((folder / "service.json").read_text())["pid"]


USER = (
    "import pathlib, sys\n"
    "from tests.cache.test_services import using\n"
    "with using(pathlib.Path(sys.argv[1])) as url:\n"
    "    print(url, flush=True)\n"
    "    sys.stdin.read()\n"
)


def user(folder):
    """Another process that uses it until its standard input is closed."""
    command = [sys.executable, "-c", USER, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_it_runs_while_it_is_used_and_no_longer(tmp_path):
    with using(tmp_path) as url:
        assert answers(url)
        pid = pid_of(tmp_path)
    assert not answers(url)
    assert not (tmp_path / "service.json").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_users_share_one_and_the_last_one_stops_it(tmp_path):
    with using(tmp_path) as url:
        with using(tmp_path) as same:
            assert same == url
        assert answers(url)
    assert not answers(url)


def test_users_that_come_at_once_start_one(tmp_path):
    processes = [user(tmp_path) for _ in range(4)]
    urls = {process.stdout.readline() for process in processes}
    for process in processes:
        process.communicate()
    assert len(urls) == 1
    assert [process.returncode for process in processes] == [0] * 4
    assert not answers(urls.pop().strip())


def test_another_process_keeps_it_running_when_its_starter_leaves(tmp_path):
    with using(tmp_path) as url:
        other = user(tmp_path)
        assert other.stdout.readline().strip() == url
    assert answers(url)
    other.communicate()
    assert not answers(url)


def test_after_a_kill_of_its_user_the_next_one_adopts_it_and_stops_it(tmp_path):
    first = user(tmp_path)
    url = first.stdout.readline().strip()
    first.send_signal(signal.SIGKILL)
    first.wait()
    pid = pid_of(tmp_path)
    with using(tmp_path) as same:
        assert same == url
        assert pid_of(tmp_path) == pid
    assert not answers(url)


def test_one_that_died_is_started_again(tmp_path):
    first = user(tmp_path)
    url = first.stdout.readline().strip()
    first.kill()
    first.wait()
    os.kill(pid_of(tmp_path), signal.SIGKILL)
    with using(tmp_path) as new:
        assert new != url
        assert answers(new)


def gone(group):
    """Wait until no process of the group is left; init may take a moment to reap one."""
    for _ in range(400):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("again", [True, False])
def test_what_one_that_died_has_left_of_itself_is_killed(tmp_path, again):
    def launch(port):
        return Launch(["sh", "-c", f"sleep 1000 & exec {' '.join(map(str, web(port).command))}"], web(port).url)

    with using(tmp_path, launch):
        pid = pid_of(tmp_path)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if again:
            with using(tmp_path, launch):
                assert pid_of(tmp_path) != pid
                assert gone(pid)
    assert gone(pid)


def test_a_start_cut_short_is_adopted_not_doubled(tmp_path):
    slow = (
        "import time, sys; from http.server import HTTPServer, SimpleHTTPRequestHandler; time.sleep(1.5);"
        "HTTPServer(('127.0.0.1', int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()"
    )

    def launch(port):
        return Launch([sys.executable, "-c", slow, str(port)], f"http://127.0.0.1:{port}/")

    script = (
        "import pathlib, sys; from labels.services import Launch; from tests.cache.test_services import using\n"
        f"command = [sys.executable, '-c', {slow!r}]\n"
        "start = lambda port: Launch([*command, str(port)], f'http://127.0.0.1:{port}/')\n"
        "with using(pathlib.Path(sys.argv[1]), start): pass\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    while not (tmp_path / "service.json").exists():
        time.sleep(0.01)
    starter.kill()
    starter.wait()
    pid = pid_of(tmp_path)
    with using(tmp_path, launch) as url:
        assert answers(url)
        assert pid_of(tmp_path) == pid


def test_one_that_ends_while_starting_is_an_error_with_its_last_lines(tmp_path):
    def launch(port):
        return Launch([sys.executable, "-c", "raise SystemExit('no weights in /models')"], f"http://127.0.0.1:{port}/")

    with pytest.raises(ServiceError, match=r"it ended(?s:.*)no weights in /models(?s:.*)same command"):
        using(tmp_path, launch).__enter__()
    assert not (tmp_path / "service.json").exists()


def test_one_that_stays_silent_is_stopped_and_is_an_error(tmp_path):
    pids = []

    def launch(port):
        return Launch([sys.executable, "-c", "import time; time.sleep(60)"], f"http://127.0.0.1:{port}/")

    def silent(_):
        pids.append(pid_of(tmp_path))

    with pytest.raises(ServiceError, match=r"no answer in 1 s(?s:.*)wrote nothing"):
        shared_service(tmp_path, "the web server", launch, silent, 1.0).__enter__()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_command_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ServiceError, match="nowhere/vllm can't be started"):
        using(tmp_path, lambda port: Launch(["/nowhere/vllm"], f"http://127.0.0.1:{port}/")).__enter__()


def test_its_environment_is_the_users_with_what_it_adds(tmp_path, monkeypatch):
    monkeypatch.setenv("FROM_USER", "kept")
    code = "import os; raise SystemExit(os.environ['FROM_USER'] + ' ' + os.environ['ADDED'])"

    def launch(port):
        return Launch([sys.executable, "-c", code], f"http://127.0.0.1:{port}/", {"ADDED": "given"})

    with pytest.raises(ServiceError, match="kept given"):
        using(tmp_path, launch).__enter__()


def test_one_that_hangs_is_killed_though_others_use_it_and_the_next_user_starts_it_anew(tmp_path):
    with using(tmp_path) as url:
        os.kill(pid := pid_of(tmp_path), signal.SIGSTOP)
        kill_hung(tmp_path, "http://127.0.0.1:1/")  # of one that has been replaced already
        assert not subprocess.run(["kill", "-0", str(pid)], check=False).returncode
        kill_hung(tmp_path, url)
        with using(tmp_path) as new:
            assert answers(new)
            assert pid_of(tmp_path) != pid
