"""A real Redis for the session, empty for each test; Clusters of each kind of server."""

from contextlib import closing

import pytest

from cache.client import connect
from cache.server import local_redis
from tests.cache.servers import binaries, cluster


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    with local_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def client(redis_url):
    with closing(connect(redis_url)) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session", params=["redis-6.2", "redis", "valkey"])
def a_cluster(request):
    """A Cluster of three nodes; not emptied between tests."""
    binary = binaries().get(request.param)
    if binary is None:
        pytest.skip(f"no {request.param} on this machine")
    with cluster(binary) as running:
        yield running


@pytest.fixture
def cluster_client(a_cluster):
    with closing(connect(a_cluster.url, cluster=True)) as client:
        client.flushall(target_nodes=client.PRIMARIES)
        yield client
