"""The chart: what it renders, what it refuses, and that the program and the API server take it."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from skylb import _core
from skylb.notify import STOP_MARGIN_S
from tests.kubernetes.charts import (
    CHART,
    EXAMPLES,
    NAMESPACE,
    READS_SLICES,
    Object,
    dry_run,
    helm,
    invalid,
    launch,
    of_kind,
    real_cluster,
    rendered,
    template,
)

BASE = "image: {repository: registry.example.net/skylb}\ndiscovery: {selector: app=vllm}\n"
examples = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


def with_values(more: str) -> str:
    """The least values, and these."""
    base, added = yaml.safe_load(BASE), yaml.safe_load(more)
    return yaml.safe_dump({**base, **added})


def deployment(values: str) -> Object:
    (found,) = of_kind(rendered(values), "Deployment")
    return found


@examples
def test_an_example_passes_lint_and_is_valid(example: Path) -> None:
    linted = helm("lint", "--strict", str(CHART), values=example.read_text())
    assert linted.returncode == 0, linted.stdout
    found = rendered(example.read_text())
    assert of_kind(found, "Deployment")
    assert invalid(found) == ""


@pytest.mark.parametrize(
    ("path", "value"),
    [("spec.template.spec.containers.0.imagePullPolcy", "Always"), ("spec.replicas", "two")],
)
def test_a_planted_fault_is_found(path: str, value: str) -> None:
    (found,) = of_kind(rendered(BASE), "Deployment")
    *parents, last = path.split(".")
    place: Any = found
    for name in parents:
        place = place[int(name) if name.isdigit() else name]
    place[last] = value
    assert last in invalid([found])


@examples
def test_the_program_takes_the_flags_and_files_of_an_example(example: Path, tmp_path: Path) -> None:
    ipv6 = yaml.safe_load(example.read_text()).get("ipFamily") == "IPv6"
    started = launch(rendered(example.read_text()), tmp_path, *(["fd00::9"] if ipv6 else []))
    assert started.unknown() == set()
    checked = started.check()
    assert checked.returncode == 0, checked.stderr


def test_the_program_refuses_what_the_schema_cannot_know(tmp_path: Path) -> None:
    values = "settings: {replica: ['http://vllm:8000'], body_bytes_max: 2 GiB}\nreplicaCount: 1\n"
    found = rendered(f"image: {{repository: registry.example.net/skylb}}\n{values}")
    checked = launch(found, tmp_path).check()
    assert checked.returncode == 2
    assert "expected body_bytes_max <= buffer_bytes_max" in checked.stderr


def test_prometheus_scrapes_under_the_name_that_the_alerts_ask_for() -> None:
    (monitor,) = of_kind(rendered(with_values("serviceMonitor: {enabled: true}")), "ServiceMonitor")
    for endpoint in monitor["spec"]["endpoints"]:
        assert {"targetLabel": "job", "replacement": "skylb"} in endpoint["relabelings"]
    alerts = (CHART.parents[1] / "prometheus" / "alerts.yml").read_text()
    assert set(re.findall(r'job="(\w+)"', alerts)) == {"skylb"}


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("replicas: 2", "replicas"),
        ("settings: {polcy: prefix}", "polcy"),
        ("settings: {policy: fastest}", "policy"),
        ("settings: {hold_timeout_s: soon}", "hold_timeout_s"),
        ("settings: {hold_len_max: -1}", "hold_len_max"),
        ("settings: {listen: ['0.0.0.0:80']}", "listen"),
        ("settings: {timeout: {head: 3}}", "head"),
        ("drain: {timeoutS: 1m}", "timeoutS"),
        ("image: {repository: x, digest: latest}", "digest"),
        ("peers: {list: ['eu.example.net:8090']}", "list"),
        ("autoscaling: {kind: vpa}", "kind"),
        ("autoscaling: {engines: [{name: a}]}", "target"),
        ("secrets: {peerKeys: skylb-peers}", "peerKeys"),
        ("podDisruptionBudget: {minAvailable: 1}", "minAvailable"),
        ("ipFamily: ipv6", "ipFamily"),
        ("service: {externalTrafficPolicy: local}", "externalTrafficPolicy"),
    ],
)
def test_misspelt_and_wrong_values_are_refused_by_name(more: str, fault: str) -> None:
    made = template(with_values(more))
    assert made.returncode != 0
    assert "values don't meet the specifications of the schema" in made.stderr
    assert re.search(rf"\b{fault}\b", made.stderr.partition("schema")[2]), made.stderr


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("image: {repository: ''}", "image.repository: name the image"),
        ("discovery: {selector: ''}", "no replicas: expected discovery.selector"),
        ("discovery: {port: http, selector: ''}", "discovery: expected discovery.selector too"),
        ("peers: {list: ['eu=http://eu:8090']}", "peers: expected secrets.peerKeys.name too"),
        (
            "{peers: {list: ['eu=http://eu:8090']}, secrets: {peerKeys: {name: k}}}",
            "peers.list: expected peers.name and peers.advertise too",
        ),
        (
            "{peers: {name: us}, secrets: {peerKeys: {name: k}}}",
            "peers.name: expected peers.list, settings.peers_dns or settings.peers_file too",
        ),
        (
            "peers: {list: ['b=http://b'], name: a, advertise: 'http://a'}\nsecrets: {peerKeys: {name: k}}",
            "peers.name: expected replicaCount 1",
        ),
        ("autoscaling: {kind: keda}", "autoscaling.prometheus: expected the URL"),
        (
            "service: {externalTrafficPolicy: Local}",
            "service.externalTrafficPolicy: expected service.type NodePort or LoadBalancer",
        ),
        ("secrets: {clientKeys: {name: k}}", "secrets.clientKeys: expected secrets.peerKeys.name too"),
        (
            "{peers: {advertise: 'http://a'}, secrets: {peerKeys: {name: k}}}",
            "peers.advertise: expected peers.name too",
        ),
        (
            "secrets: {peerKeys: {name: k}, peerTls: {name: t}}",
            "secrets.peerTls: expected peers.name too",
        ),
    ],
)
def test_values_that_are_wrong_together_are_refused_in_words(more: str, fault: str) -> None:
    made = template(with_values(more))
    assert made.returncode != 0
    assert fault in made.stderr


# ------------------------------------------------------------------------------ what it is


@examples
def test_the_account_may_list_and_watch_slices_where_it_must_and_nothing_else(example: Path) -> None:
    values = yaml.safe_load(example.read_text())
    found = rendered(example.read_text())
    assert not of_kind(found, "ClusterRole")
    assert not of_kind(found, "ClusterRoleBinding")
    roles = of_kind(found, "Role")
    assert all(role["rules"] == READS_SLICES for role in roles)
    (account,) = of_kind(found, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    bindings = of_kind(found, "RoleBinding")
    assert [(one["metadata"], one["roleRef"]["name"]) for one in bindings] == [
        (role["metadata"], role["metadata"]["name"]) for role in roles
    ]
    subject = {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": NAMESPACE}
    assert all(one["subjects"] == [subject] for one in bindings)
    discovery = values.get("discovery", {})
    wanted = set(discovery.get("namespaces", [NAMESPACE])) if discovery else set()
    finds_peers = "peerKeys" in values.get("secrets", {}) and "peers" not in values
    assert {role["metadata"]["namespace"] for role in roles} == wanted | (
        {NAMESPACE} if finds_peers else set()
    )
    (made,) = of_kind(found, "Deployment")
    assert made["spec"]["template"]["spec"]["automountServiceAccountToken"] is bool(roles)


@examples
def test_a_balancer_may_do_as_little_as_possible(example: Path) -> None:
    (made,) = of_kind(rendered(example.read_text()), "Deployment")
    spec = made["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "hostNetwork" not in spec
    assert all("emptyDir" not in one or one["name"] == "scratch" for one in spec["volumes"])


@pytest.mark.parametrize(("delay_s", "timeout_s"), [(5, 60), (0, 0), (2.5, 0.2), (30, 3600)])
def test_the_grace_period_is_longer_than_the_drain(delay_s: float, timeout_s: float) -> None:
    made = deployment(with_values(f"drain: {{delayS: {delay_s}, timeoutS: {timeout_s}}}"))
    grace_s = made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s == math.ceil(delay_s + timeout_s) + 15
    assert grace_s > delay_s + timeout_s + STOP_MARGIN_S


def test_another_setting_replaces_the_balancers_and_the_same_one_does_not() -> None:
    sums = [
        deployment(with_values(f"settings: {{hold_timeout_s: {hold_s}}}"))["spec"]["template"]["metadata"]
        for hold_s in (20, 20, 21)
    ]
    assert sums[0] == sums[1] != sums[2]


def test_two_processes_of_one_name_never_run_at_once() -> None:
    regions = next(path for path in EXAMPLES if path.stem == "regions").read_text()
    rolling = deployment(regions)["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (0, 1)
    rolling = deployment(BASE)["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (1, 0)


def test_balancers_find_each_other_by_a_headless_service_that_lists_those_that_are_not_ready_too() -> None:
    found = rendered(with_values("secrets: {peerKeys: {name: k}}"))
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(found, "Service")}
    assert services.keys() == {"r-skylb", "r-skylb-admin", "r-skylb-peers"}
    peers = services["r-skylb-peers"]
    assert (peers["clusterIP"], peers["publishNotReadyAddresses"]) == ("None", True)
    assert [port["name"] for port in peers["ports"]] == ["sync", "peer"]
    (made,) = of_kind(found, "Deployment")
    arguments = made["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--peer-kubernetes-service=r-skylb-peers" in arguments
    assert "--name=$(POD_NAME)" in arguments


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_listeners_take_connections_of_the_clusters_family(family: str, tmp_path: Path) -> None:
    values = with_values(f"{{ipFamily: {family}, secrets: {{peerKeys: {{name: k}}}}}}")
    everywhere, own = {"IPv4": ("0.0.0.0", "10.88.0.9"), "IPv6": ("[::]", "fd00::9")}[family]
    started = launch(rendered(values), tmp_path, own)
    assert started.settings["listen"] == [f"{everywhere}:8080"]
    assert started.settings["admin"] == f"{everywhere}:8081"
    assert started.settings["sync_listen"] == f"{everywhere}:8090"
    assert f"--peer-listen={f'[{own}]' if family == 'IPv6' else own}:8091" in started.arguments
    checked = started.check()
    assert checked.returncode == 0, checked.stderr
    regions = yaml.safe_load(next(path for path in EXAMPLES if path.stem == "regions").read_text())
    started = launch(rendered(yaml.safe_dump({**regions, "ipFamily": family})), tmp_path, own)
    assert f"--peer-listen={everywhere}:8091" in started.arguments, "as others reach it at another address"


def test_probes_name_no_host_so_that_kubernetes_asks_at_the_address_there_is() -> None:
    (container,) = deployment(BASE)["spec"]["template"]["spec"]["containers"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert all(probe.keys() == {"path", "port"} for probe in probes)


def test_the_traffic_policy_of_the_clients_service_is_left_to_kubernetes_unless_it_is_given() -> None:
    def clients(more: str) -> Object:
        made: Object = of_kind(rendered(with_values(more)), "Service")[0]["spec"]
        return made

    assert "externalTrafficPolicy" not in clients("service: {type: LoadBalancer}")
    assert (
        clients("service: {type: NodePort, externalTrafficPolicy: Local}")["externalTrafficPolicy"] == "Local"
    )


def test_a_single_balancer_has_no_disruption_budget_that_would_block_its_node() -> None:
    assert of_kind(rendered(with_values("replicaCount: 2")), "PodDisruptionBudget")
    assert not of_kind(rendered(with_values("replicaCount: 1")), "PodDisruptionBudget")


def test_only_the_clients_port_is_open_to_everybody() -> None:
    (policy,) = of_kind(rendered(with_values("secrets: {peerKeys: {name: k}}")), "NetworkPolicy")
    anybody = [rule["ports"] for rule in policy["spec"]["ingress"] if "from" not in rule]
    assert anybody == [[{"port": "client", "protocol": "TCP"}]]


def test_the_query_asks_for_waiting_and_running_requests_of_exactly_the_models() -> None:
    keda = next(path for path in EXAMPLES if path.stem == "keda").read_text()
    llama, qwen = of_kind(rendered(keda), "ScaledObject")
    (trigger,) = llama["spec"]["triggers"]
    models = r"meta-llama/Llama-3\\.1-8B-Instruct|llama-support-adapter"
    assert trigger["metadata"] == {
        "serverAddress": "http://prometheus.monitoring.svc:9090",
        "threshold": "32",
        "query": 'sum({__name__=~"skylb_model_(held|in_flight)_requests",model=~"'
        + models
        + '",namespace="default"})',
    }
    assert qwen["metadata"]["namespace"] == "inference"


def test_the_versions_of_chart_image_and_program_are_one() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == _core.__version__
    image = deployment(BASE)["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"registry.example.net/skylb:{_core.__version__}"


# ------------------------------------------------------------------------ the real server


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Any:
    """A namespace at a real API server."""
    return real_cluster(request)


def make_namespaces(cluster: Any, found: list[Object]) -> None:
    """Those that objects name and that are not there yet."""
    there = {one["metadata"]["name"] for one in cluster.ask("GET", "/api/v1/namespaces")["items"]}
    for name in {one["metadata"].get("namespace", cluster.namespace) for one in found} - there:
        cluster.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})


@examples
def test_the_api_server_takes_every_object_of_an_example(example: Path, real: Any) -> None:
    found = rendered(example.read_text(), namespace=real.namespace)
    make_namespaces(real, found)
    for one in found:
        dry_run(real, one)


def test_the_api_server_refuses_a_planted_fault(real: Any) -> None:
    (made,) = of_kind(rendered(BASE, namespace=real.namespace), "Deployment")
    made["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(Exception, match="readynessProbe"):
        dry_run(real, made)


def test_helm_installs_changes_and_removes_a_release_and_its_account_reads_slices_only(real: Any) -> None:
    place = ["--namespace", real.namespace, "--kubeconfig", str(real.kubeconfig)]
    for values in (BASE, with_values("secrets: {peerKeys: {name: k}}")):
        done = helm("upgrade", "--install", "r", str(CHART), *place, values=values)
        assert done.returncode == 0, done.stderr
        assert ("the balancers do not know of each other" in done.stdout) == (values == BASE)
    token = real.token("r-skylb")
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{real.namespace}/endpointslices"
    assert real.server.ask("GET", slices, token=token)["kind"] == "EndpointSliceList"
    elsewhere = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
    for path in (elsewhere, real.path("secrets"), real.path("pods"), "/api/v1/nodes"):
        with pytest.raises(Exception, match="403"):
            real.server.ask("GET", path, token=token)
    with pytest.raises(Exception, match="403"):
        real.server.ask("POST", slices, json.loads('{"metadata": {"name": "x"}}'), token=token)
    removed = helm("uninstall", "r", *place)
    assert removed.returncode == 0, removed.stderr
    assert real.ask("GET", real.path("serviceaccounts"))["items"] == []
