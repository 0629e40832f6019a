"""A balancer in front of the replicas that Kubernetes lists, and what it says of them."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.kubernetes.cluster import Cluster
from tests.support.processes import Balancer, balancer, eventually

SELECTOR = ("--kubernetes-selector", "kubernetes.io/service-name=vllm")


@contextmanager
def serving(cluster: Cluster, *arguments: str, wait_ready: bool = False) -> Iterator[Balancer]:
    """A balancer in front of the replicas of the Service ``vllm``."""
    given = [*SELECTOR, "--kubernetes-config", str(cluster.kubeconfig), *arguments]
    with balancer(arguments=given, wait_ready=wait_ready) as front:
        yield front


def replicas(front: Balancer) -> dict[str, dict[str, Any]]:
    """What the engine has of each replica that is listed, by its host."""
    found = front.state()
    return {
        row["name"].rpartition("/")[2].rpartition(":")[0]: row
        for row in found["engine"]["replicas"]
        if row["name"] in found["discovery"]["replicas"]
    }


def drains(front: Balancer) -> dict[str, bool]:
    """Whether each replica drains, by its host."""
    return {host: row["draining"] for host, row in replicas(front).items()}


def sees(front: Balancer, **wanted: bool) -> None:
    """Waits until these are the replicas: the last part of each address, and whether it drains."""
    named = {f"10.88.0.{number.removeprefix('n')}": drain for number, drain in wanted.items()}
    # After the API server was away, the controller takes its time.
    eventually(lambda: drains(front) == named, timeout_s=120, what=f"{named}")


def verb(front: Balancer, path: str) -> dict[str, Any]:
    """A POST to the admin listener."""
    request = urllib.request.Request(f"{front.admin}{path}", method="POST", data=b"")
    with urllib.request.urlopen(request, timeout=30) as answer:
        said: dict[str, Any] = json.loads(answer.read())
    return said


def age_s(front: Balancer) -> float:
    """How old the list of replicas is."""
    return front.metric("skylb_discovery_age_seconds")


def told(front: Balancer, text: str) -> int:
    """How many lines of the log have a text, but for the report of the start."""
    lines = front.child.text().splitlines()
    return sum(text in line and '"ready: ' not in line for line in lines)
