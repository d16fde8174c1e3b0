"""Clusters of each kind of server."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from cache.client import connect
from tests.cache.servers import binaries, cluster


@pytest.fixture(scope="session")
def clusters():
    """A Cluster of three nodes of each kind of server there is."""
    with ExitStack() as stack, ThreadPoolExecutor() as pool:  # each takes two seconds, all of it waiting
        starting = {kind: pool.submit(stack.enter_context, cluster(binary)) for kind, binary in binaries().items()}
        yield {kind: one.result() for kind, one in starting.items()}


@pytest.fixture(params=["redis-6.2", "redis", "valkey"])
def a_cluster(clusters, request):
    """One of the Clusters; not emptied between tests."""
    if request.param not in clusters:
        pytest.skip(f"no {request.param} on this machine")
    return clusters[request.param]


@pytest.fixture
def cluster_client(a_cluster):
    with closing(connect(a_cluster.url, cluster=True)) as client:
        client.flushall(target_nodes=client.PRIMARIES)
        yield client
