"""Fixtures: one cluster for all tests, and a namespace in it for each."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.kubernetes.cluster import Cluster, Server, programs, running

_numbers = count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The API server, the EndpointSlice controller and etcd."""
    found = programs()
    if found is None:
        pytest.skip("needs a real API server in a network namespace: make test-kubernetes")
    with running(found) as started:
        yield started


@pytest.fixture
def cluster(server: Server) -> Cluster:
    """A namespace of its own, empty."""
    name = f"test-{next(_numbers)}"
    server.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return Cluster(server, name)
