"""Replicas as the real EndpointSlice controller lists them, in front of real mock replicas."""

import json
from contextlib import ExitStack

import pytest

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.front import SELECTOR, drains, replicas, sees, serving, verb
from tests.support.processes import balancer, eventually, get, start_mocks


def test_a_replica_is_ready_terminates_and_goes_as_the_controller_says(cluster: Cluster) -> None:
    cluster.service("vllm")
    with serving(cluster) as front:
        sees(front)
        cluster.run("a", "10.88.0.2")
        cluster.until("10.88.0.2", False, False, False)
        cluster.run("b", "10.88.0.3", ready=True)
        sees(front, n3=False)
        cluster.set_ready("a", True)
        sees(front, n2=False, n3=False)
        cluster.delete("a")
        cluster.until("10.88.0.2", False, True, True)
        sees(front, n2=True, n3=False)
        cluster.set_ready("a", False)
        cluster.until("10.88.0.2", False, False, True)
        sees(front, n3=False)
        cluster.gone("a")
        cluster.until("10.88.0.2")
        cluster.set_ready("b", False)
        sees(front, n3=True)
        cluster.set_ready("b", True)
        sees(front, n3=False)
        cluster.delete("b")
        cluster.gone("b")
        sees(front)
        assert [one["endpoints"] for one in cluster.slices()] == [None]
        assert front.child.alive()


def test_node_zone_and_the_labels_of_the_service_are_known(cluster: Cluster) -> None:
    cluster.node("n-zone", zone="eu-1a")
    cluster.service("vllm", labels={"skylb.dev/role": "decode", "skylb.dev/weight": "3", "tier": "live"})
    cluster.run("a", "10.88.0.2", node="n-zone", ready=True)
    with serving(cluster, "--region", "eu", "--kubernetes-selector", "tier=live") as front:
        sees(front, n2=False)
        said = front.state()["discovery"]["replicas"]["http://10.88.0.2:8000"]
        assert said == {
            "instance": f"{cluster.namespace}/a",
            "node": "n-zone",
            "zone": "eu-1a",
            "role": "decode",
            "weight": 3,
            "region": None,
            "draining": False,
        }
        cluster.label_service("vllm", {"skylb.dev/weight": "0", "skylb.dev/region": "us"})
        sees(front, n2=True)
        assert front.state()["discovery"]["replicas"]["http://10.88.0.2:8000"]["region"] == "us"
        cluster.label_service("vllm", {"skylb.dev/weight": None})
        sees(front, n2=False)
        cluster.label_service("vllm", {"tier": None})
        sees(front)


def test_a_replica_that_has_the_address_of_another_one_is_a_new_one(cluster: Cluster) -> None:
    cluster.service("vllm")
    cluster.run("a", "10.88.0.2", ready=True)
    with serving(cluster) as front:
        sees(front, n2=False)
        first = replicas(front)["10.88.0.2"]["replica"]
        cluster.set_ready("a", False)
        sees(front, n2=True)
        cluster.set_ready("a", True)
        sees(front, n2=False)
        assert replicas(front)["10.88.0.2"]["replica"] == first
        cluster.run("b", "10.88.0.2", ready=True)
        cluster.delete("a")
        cluster.gone("a")
        eventually(lambda: replicas(front)["10.88.0.2"]["replica"] != first, what="another id")
        assert drains(front) == {"10.88.0.2": False}


def test_an_operators_drain_and_that_of_kubernetes_do_not_end_each_other(cluster: Cluster) -> None:
    cluster.service("vllm")
    cluster.run("a", "10.88.0.2", ready=True)
    with serving(cluster) as front:
        sees(front, n2=False)
        number = replicas(front)["10.88.0.2"]["replica"]
        assert verb(front, f"/replicas/{number}/drain")["draining"] is True
        cluster.set_ready("a", False)
        cluster.set_ready("a", True)
        cluster.run("b", "10.88.0.3", ready=True)
        sees(front, n2=True, n3=False)
        assert verb(front, f"/replicas/{number}/undrain")["draining"] is False
        sees(front, n2=False, n3=False)
        cluster.delete("a")
        sees(front, n2=True, n3=False)
        assert verb(front, f"/replicas/{number}/undrain")["draining"] is True
        assert drains(front) == {"10.88.0.2": True, "10.88.0.3": False}


def test_a_port_that_is_not_clear_is_told_and_a_name_makes_it_clear(cluster: Cluster) -> None:
    cluster.service("vllm", ports={"api": 8000, "metrics": 9000})
    cluster.run("a", "10.88.0.2", ready=True)
    fault = "Service vllm has api (8000), metrics (9000): expected kubernetes.port to name one of its ports"
    with serving(cluster) as front:
        told = f"kubernetes {cluster.namespace}"
        eventually(lambda: front.state()["replicas"].get(told) == f"unlisted: {fault}", what="told")
        eventually(lambda: fault in front.child.text(), what="a line in the log")
    for port in ("api", "8000"):
        with serving(cluster, "--kubernetes-port", port) as front:
            sees(front, n2=False)


def test_a_service_account_with_the_least_rights_serves_from_inside(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.service("vllm")
    cluster.run("a", "10.88.0.2", ready=True)
    child, _ = start_mocks(1, listen="10.88.0.2:8000")
    with ExitStack() as stack:
        stack.callback(child.stop)
        stack.enter_context(cluster.inside(cluster.account("skylb"), monkeypatch))
        front = stack.enter_context(balancer(arguments=list(SELECTOR)))
        assert list(drains(front)) == ["10.88.0.2"]
        assert json.loads(get(f"{front.url}/v1/models"))["data"]
