"""Balancers that find each other by their headless Service."""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.front import serving
from tests.support.processes import Balancer, eventually, get

PORTS = {"sync": 9001, "peer": 9000}


@contextmanager
def member(cluster: Cluster, name: str, address: str, directory: Path, *arguments: str) -> Iterator[Balancer]:
    """A balancer in a pod of the Service ``skylb``, with what a chart would give it."""
    config = cluster.server.write_config(directory / name, cluster.token("skylb"), cluster.namespace)
    cluster.run(name, address, app="skylb")
    given = [
        *("--peer-kubernetes-service", "skylb", "--peer-key-file", str(directory / "keys")),
        *("--sync-listen", f"{address}:{PORTS['sync']}", "--peer-listen", f"{address}:{PORTS['peer']}"),
        *("--name", name, "--kubernetes-config", str(config), *arguments),
    ]
    with serving(cluster, *given) as front:
        yield front


def peers(front: Balancer) -> dict[str, dict[str, Any]]:
    """Peers by name."""
    return {row["peer"]: row for row in json.loads(get(f"{front.admin}/peers"))["peers"]}


def alive(front: Balancer) -> set[str]:
    """Names of the peers that are heard."""
    return {name for name, row in peers(front).items() if row["state"] == "alive"}


def test_balancers_find_each_other_by_their_service_with_the_least_rights(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(f"k1:{base64.b64encode(os.urandom(32)).decode()}\n")
    (tmp_path / "keys").chmod(0o600)
    cluster.service("vllm")
    cluster.service("skylb", ports=PORTS, publishNotReadyAddresses=True)
    cluster.account("skylb")
    with ExitStack() as stack:
        one = stack.enter_context(member(cluster, "skylb-1", "10.88.0.11", tmp_path))
        other = stack.enter_context(member(cluster, "skylb-2", "10.88.0.12", tmp_path))
        eventually(lambda: alive(one) == {"skylb-2"} and alive(other) == {"skylb-1"}, what="they meet")
        assert peers(one)["skylb-2"]["region"] == "local"
        with member(cluster, "skylb-3", "10.88.0.13", tmp_path) as third:
            eventually(lambda: alive(third) == {"skylb-1", "skylb-2"}, what="a third one meets both")
            eventually(lambda: alive(one) == {"skylb-2", "skylb-3"}, what="and is met")
        cluster.delete("skylb-3")
        cluster.gone("skylb-3")
        eventually(lambda: set(peers(one)) == {"skylb-2"}, what="one that is gone is no peer")
        cluster.server.kill_api()
        cluster.server.start_api()
        assert alive(one) == {"skylb-2"}


def test_peers_of_another_region_say_so_by_the_label_of_their_service(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(f"k1:{base64.b64encode(os.urandom(32)).decode()}\n")
    (tmp_path / "keys").chmod(0o600)
    cluster.service("vllm")
    cluster.service("skylb", ports=PORTS, labels={"skylb.dev/region": "eu"}, publishNotReadyAddresses=True)
    cluster.account("skylb")
    with ExitStack() as stack:
        one = stack.enter_context(member(cluster, "skylb-1", "10.88.0.11", tmp_path, "--region", "eu"))
        other = stack.enter_context(member(cluster, "skylb-2", "10.88.0.12", tmp_path, "--region", "eu"))
        eventually(lambda: alive(one) == {"skylb-2"} and alive(other) == {"skylb-1"}, what="they meet")
        assert peers(one)["skylb-2"]["region"] == "eu"
