"""A real Redis for the session, empty for each test."""

from contextlib import closing

import pytest

from cache.client import connect
from cache.server import local_redis


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    with local_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def client(redis_url):
    with closing(connect(redis_url)) as client:
        client.flushall()
        yield client
