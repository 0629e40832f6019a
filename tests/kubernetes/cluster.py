"""A real API server, the real EndpointSlice controller and etcd, and what a kubelet would say to them.

Nothing runs a pod: a test starts the process itself, and patches the status that the kubelet would write.
"""

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skylb.discovery.kubernetes.api import ACCOUNT
from tests.support.processes import Child, eventually, free_port

ADMIN = "admin-token"
SLICES = "/apis/discovery.k8s.io/v1"
RIGHTS = ({"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},)
"""All that SkyLB needs."""

GRACE_S = 30


class ApiError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status


class Server:
    """The processes of a cluster.

    Args:
        programs: where they are.
        directory: for certificates, data and kubeconfigs.
    """

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self.directory = directory
        self._etcd_ports = free_port(), free_port()
        self._port = free_port()
        self._children: dict[str, Child] = {}
        self.url = f"https://127.0.0.1:{self._port}"
        self.authority = directory / "certs" / "apiserver.crt"
        self.kubeconfig = directory / "admin.conf"

    def start(self) -> None:
        """Starts all, and waits until it is ready."""
        key = self.directory / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (self.directory / "tokens.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n')
        self.start_etcd()
        self.start_api()
        self.write_config(self.kubeconfig, ADMIN)
        self._start(
            "kube-controller-manager",
            *("--kubeconfig", str(self.kubeconfig)),
            *("--controllers", "endpointslice-controller"),
            "--leader-elect=false",
            *("--bind-address", "127.0.0.1", "--secure-port", str(free_port())),
            *("--cert-dir", str(self.directory / "kcm-certs")),
        )

    def stop(self) -> None:
        """Ends all."""
        for child in self._children.values():
            child.kill()
            child.out.unlink(missing_ok=True)

    def _start(self, program: str, *arguments: str) -> None:
        self._children[program] = Child([str(self._programs / program), *arguments])

    def _kill(self, program: str) -> None:
        child = self._children.pop(program)
        child.kill()
        child.out.unlink(missing_ok=True)

    def start_etcd(self) -> None:
        """Starts etcd with the data that are there."""
        clients, peers = (f"http://127.0.0.1:{port}" for port in self._etcd_ports)
        self._start(
            "etcd",
            *("--data-dir", str(self.directory / "etcd")),
            *("--listen-client-urls", clients, "--advertise-client-urls", clients),
            *("--listen-peer-urls", peers, "--unsafe-no-fsync", "--log-level", "error"),
        )

    def kill_etcd(self) -> None:
        """SIGKILL."""
        self._kill("etcd")

    def start_api(self) -> None:
        """Starts the API server, and waits until it is ready."""
        key = str(self.directory / "sa.key")
        self._start(
            "kube-apiserver",
            *("--etcd-servers", f"http://127.0.0.1:{self._etcd_ports[0]}"),
            *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
            *("--secure-port", str(self._port), "--cert-dir", str(self.directory / "certs")),
            *("--service-cluster-ip-range", "10.0.0.0/24", "--authorization-mode", "RBAC"),
            *("--token-auth-file", str(self.directory / "tokens.csv")),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", key, "--service-account-signing-key-file", key),
            *("--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none"),
        )
        self._children["kube-apiserver"].require(self.ready, timeout_s=120, what="the API server is ready")

    def kill_api(self) -> None:
        """SIGKILL: on SIGTERM it waits for open watches."""
        self._kill("kube-apiserver")

    def ready(self) -> bool:
        """Whether the API server answers."""
        try:
            return self.ask("GET", "/readyz") == "ok"
        except (OSError, ApiError):
            return False

    # ------------------------------------------------------------------------------- asking

    def ask(
        self, method: str, path: str, body: object = None, *, kind: str = "json", token: str = ADMIN
    ) -> Any:
        """One request; the answer's JSON, or its text.

        Raises:
            ApiError: it is an error.
        """
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json" if kind == "json" else f"application/{kind}+json",
            },
        )
        context = ssl.create_default_context(cafile=str(self.authority))
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                said = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode()[:500]) from error
        return json.loads(said) if said.startswith("{") else said

    def write_config(self, path: Path, token: str, namespace: str = "default") -> Path:
        """Writes a kubeconfig; the path."""
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        context = {"cluster": "c", "user": "u", "namespace": namespace}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "contexts": [{"name": "c", "context": context}],
                    "users": [{"name": "u", "user": {"token": token}}],
                }
            )
        )
        path.chmod(0o600)
        return path


@dataclass
class Cluster:
    """One namespace of the cluster, for one test."""

    server: Server
    namespace: str

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator, whose context has this namespace."""
        return self.server.write_config(
            self.server.directory / f"{self.namespace}.conf", ADMIN, self.namespace
        )

    def path(self, kind: str, name: str = "") -> str:
        """Of objects of the core group in this namespace."""
        return f"/api/v1/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def ask(self, method: str, path: str, body: object = None, *, kind: str = "json") -> Any:
        """See `Server.ask`."""
        return self.server.ask(method, path, body, kind=kind)

    # ------------------------------------------------------------------------------- objects

    def node(self, name: str, zone: str = "") -> None:
        """A node; it may be there already."""
        labels = {"topology.kubernetes.io/zone": zone} if zone else {}
        body = {"metadata": {"name": name, "labels": labels}}
        with contextlib.suppress(ApiError):
            self.ask("POST", "/api/v1/nodes", body)

    def service(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        ports: Mapping[str, int] | None = None,
        **spec: Any,
    ) -> None:
        """A headless Service of the pods that have the label ``app``."""
        listed = [{"name": port, "port": number} for port, number in (ports or {"http": 8000}).items()]
        body = {
            "metadata": {"name": name, "labels": dict(labels or {})},
            "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": listed, **spec},
        }
        self.ask("POST", self.path("services"), body)

    def label_service(self, name: str, labels: Mapping[str, str | None]) -> None:
        """Changes labels of a Service."""
        self.ask("PATCH", self.path("services", name), {"metadata": {"labels": labels}}, kind="merge-patch")

    def run(
        self, name: str, address: str, *, app: str = "vllm", node: str = "n1", ready: bool = False
    ) -> None:
        """A pod with an address, as if its node had started it."""
        body = {
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": GRACE_S,
                "containers": [{"name": "main", "image": "none"}],
            },
        }
        self.node(node)
        self.ask("POST", self.path("pods"), body)
        self.set_ready(name, ready, {"podIP": address, "podIPs": [{"ip": address}]})

    def set_ready(self, name: str, ready: bool, more: Mapping[str, object] | None = None) -> None:
        """What the kubelet says of the readiness probe."""
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        body = {"status": {"phase": "Running", "conditions": [condition], **(more or {})}}
        self.ask("PATCH", self.path("pods", name) + "/status", body, kind="strategic-merge-patch")

    def delete(self, name: str) -> None:
        """Asks a pod to end: it terminates from now on."""
        self.ask("DELETE", self.path("pods", name), {"gracePeriodSeconds": GRACE_S})

    def gone(self, name: str) -> None:
        """The pod's processes have ended."""
        self.ask("DELETE", self.path("pods", name), {"gracePeriodSeconds": 0})

    def account(self, name: str, rules: object = RIGHTS) -> str:
        """A service account with these rights in its namespace; a token of it."""
        metadata = {"metadata": {"name": name}}
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}"
        self.ask("POST", self.path("serviceaccounts"), metadata)
        self.ask("POST", f"{rbac}/roles", {**metadata, "rules": rules})
        binding = {
            **metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}],
        }
        self.ask("POST", f"{rbac}/rolebindings", binding)
        return self.token(name)

    def set_rules(self, name: str, rules: object) -> None:
        """Changes what a service account may do."""
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}/roles/{name}"
        self.ask("PATCH", path, {"rules": rules}, kind="merge-patch")

    def token(self, account: str) -> str:
        """A token of a service account (TokenRequest)."""
        path = self.path("serviceaccounts", account) + "/token"
        said = self.ask("POST", path, {"spec": {"expirationSeconds": 600}})
        return str(said["status"]["token"])

    @contextmanager
    def inside(self, token: str, patch: pytest.MonkeyPatch) -> Iterator[Path]:
        """What the kubelet puts into a pod, at its real place: /run is these tests' own. Its directory."""
        host, _, port = self.server.url.removeprefix("https://").partition(":")
        patch.setenv("KUBERNETES_SERVICE_HOST", host)
        patch.setenv("KUBERNETES_SERVICE_PORT", port)
        ACCOUNT.mkdir(parents=True)
        try:
            (ACCOUNT / "token").write_text(token)
            (ACCOUNT / "namespace").write_text(self.namespace)
            shutil.copy(self.server.authority, ACCOUNT / "ca.crt")
            yield ACCOUNT
        finally:
            shutil.rmtree(ACCOUNT)

    def slices(self) -> list[dict[str, Any]]:
        """As the controller has written them."""
        listed = self.ask("GET", f"{SLICES}/namespaces/{self.namespace}/endpointslices")
        found: list[dict[str, Any]] = listed["items"]
        return found

    def conditions(self) -> dict[str, tuple[bool | None, ...]]:
        """Ready, serving and terminating, by address."""
        return {
            end["addresses"][0]: tuple(
                end.get("conditions", {}).get(name) for name in ("ready", "serving", "terminating")
            )
            for one in self.slices()
            for end in one["endpoints"] or ()
        }

    def until(self, address: str, *conditions: bool) -> None:
        """Waits until the controller has written an endpoint so; without conditions, until it is gone.

        After an outage it asks the API server again within 30 s, twice in a row at worst.
        """
        wanted = conditions or None
        eventually(
            lambda: self.conditions().get(address) == wanted, timeout_s=120, what=f"{address} is {wanted}"
        )


@contextmanager
def running(programs: Path) -> Iterator[Server]:
    """A cluster, while it is needed."""
    with ExitStack() as undo:
        directory = Path(tempfile.mkdtemp(prefix="skylb-kubernetes-"))
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        server = Server(programs, directory)
        undo.callback(server.stop)
        server.start()
        yield server


def programs() -> Path | None:
    """Where the programs are, if this runs as ``make test-kubernetes`` does."""
    found = os.environ.get("KUBERNETES_PROGRAMS")
    return Path(found) if found else None
