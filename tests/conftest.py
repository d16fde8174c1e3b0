"""Workers share the tests, file by file; files that share a costly fixture go to one of them, and begin first."""

from contextlib import closing
from pathlib import PurePosixPath

import pytest
from xdist.scheduler import LoadScopeScheduling

from cache.client import connect
from cache.server import local_redis
from flows.environment import prepare

prepare(offline=True)  # before any test imports torch: threads that spin against the other worker's cost minutes

TOGETHER = {
    "night": ("test_night", "test_hostile_log", "test_left_behind", "test_prefect", "test_real_data"),
    "engines": ("test_engine_url", "test_engine_ray", "test_engine_vllm"),
}


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """A real Redis for the session."""
    with local_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def client(redis_url):
    """A client of that Redis, empty for each test."""
    with closing(connect(redis_url)) as client:
        client.flushall()
        yield client


def pytest_collection() -> None:
    """No example has a deadline: the first one may load torch, and any may run while others keep the machine busy."""
    from hypothesis import settings  # here, where the workers have been started: it takes a second

    settings.register_profile("tests", deadline=None)
    settings.load_profile("tests")


class ByFixture(LoadScopeScheduling):
    """Gives a worker whole groups of files."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFixture:
    """xdist asks for the scheduler here; its own groups by mark do nothing under pytest 9.2."""
    return ByFixture(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest groups begin first, so that none is left over at the end."""
    first = list(TOGETHER)
    items.sort(key=lambda item: first.index(group) if (group := group_of(item.nodeid)) in first else len(first))


def group_of(nodeid: str) -> str:
    """The group of a test's file: the file itself, unless it shares a fixture with others."""
    file = nodeid.partition("::")[0]
    return next((group for group, files in TOGETHER.items() if PurePosixPath(file).stem in files), file)
