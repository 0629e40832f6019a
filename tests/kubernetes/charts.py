"""Renders the chart and the plain manifests with the real tools, and plays the node that runs their pods."""

import os
import re
import subprocess
import tempfile
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from skylb.config import Settings
from skylb.options import options
from tests.support.processes import SKYLB, eventually
from tests.support.regions import key_line

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "skylb"
EXAMPLES = sorted((ROOT / "deploy" / "helm" / "examples").glob("*.yaml"))
PLAIN = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
TLS = ROOT / "tests" / "support" / "tls"

VERSION = "1.36.3"
"""Of Kubernetes: helm assumes an old one where it has no server to ask."""

READS_SLICES = [
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
]
"""All that SkyLB needs of the API server."""

NAMESPACE = "default"
ETC = "/etc/skylb"
"""Where a pod has its settings and secrets."""

Object = dict[str, Any]


def tools() -> Path:
    """The directory of tools.sh."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "skylb" / "kubernetes"
    found = Path(os.environ.get("KUBERNETES_TOOLS", cache))
    if not (found / "bin" / "helm").exists():
        pytest.skip("needs helm and kubeconform: tests/kubernetes/tools.sh installs them")
    return found


def helm(*arguments: str, values: str | None = None) -> subprocess.CompletedProcess[str]:
    """One command of helm; ``values`` are read from its standard input."""
    more = ["--values", "-"] if values is not None else []
    return subprocess.run(
        [str(tools() / "bin" / "helm"), *arguments, *more],
        input=values,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def template(
    values: str, *arguments: str, release: str = "r", namespace: str = NAMESPACE
) -> subprocess.CompletedProcess[str]:
    """What the chart becomes."""
    place = ["--namespace", namespace, "--kube-version", VERSION]
    return helm("template", release, str(CHART), *place, *arguments, values=values)


def rendered(values: str, *arguments: str, **where: str) -> list[Object]:
    """The objects that the chart becomes."""
    made = template(values, *arguments, **where)
    assert made.returncode == 0, made.stderr
    return objects(made.stdout)


def objects(text: str) -> list[Object]:
    """The objects of a file."""
    return [found for found in yaml.safe_load_all(text) if found]


def of_kind(found: list[Object], kind: str) -> list[Object]:
    """Those of one kind."""
    return [one for one in found if one["kind"] == kind]


def invalid(found: list[Object]) -> str:
    """What kubeconform says of objects, empty where each is valid: no field is misspelt, no type is wrong."""
    schemas = tools() / "schemas" / "{{.ResourceKind}}{{.KindSuffix}}.json"
    checked = subprocess.run(
        [str(tools() / "bin" / "kubeconform"), "-strict", "-schema-location", str(schemas), "-"],
        input=yaml.safe_dump_all(found),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = checked.stdout + checked.stderr
    return said or (f"status {checked.returncode}" if checked.returncode else "")


# ---------------------------------------------------------------------- the node's part


@dataclass
class Launch:
    """What a node would start, in a directory in the place of `ETC`."""

    template: Object
    arguments: list[str]
    environment: dict[str, str]

    @property
    def container(self) -> Object:
        """The only one."""
        (found,) = self.template["spec"]["containers"]
        return dict(found)

    def check(self) -> subprocess.CompletedProcess[str]:
        """``skylb config check`` with the flags, variables and files that ``skylb serve`` would have."""
        assert self.arguments[0] == "serve"
        command = [*SKYLB, "config", "check", *self.arguments[1:]]
        environment = {"PATH": os.environ["PATH"], **self.environment}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def unknown(self) -> set[str]:
        """Flags and settings that this version of the program does not have."""
        flags = {word.partition("=")[0] for word in self.arguments[1:]} - {"--config", "--no-access-log"}
        known = {name for option in options(Settings) for name in (option.flag, option.name)}
        return (flags | self.settings.keys()) - known - {name.partition(".")[0] for name in known}

    @property
    def settings(self) -> Object:
        """The file of settings."""
        named = next(word for word in self.arguments if word.startswith("--config="))
        return tomllib.loads(Path(named.partition("=")[2]).read_text())


def launch(found: list[Object], directory: Path, address: str = "10.88.0.9") -> Launch:
    """The pod of the Deployment, with its files made, as far as the program reads them."""
    (deployment,) = of_kind(found, "Deployment")
    made: Object = deployment["spec"]["template"]
    (container,) = made["spec"]["containers"]
    volumes = {volume["name"]: volume for volume in made["spec"]["volumes"]}
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(found, "ConfigMap")}
    texts: dict[str, str] = {}
    for mount in container["volumeMounts"]:
        path, volume = mount["mountPath"], volumes[mount["name"]]
        if "configMap" in volume:
            for name, text in maps[volume["configMap"]["name"]].items():
                texts[path if "subPath" in mount else f"{path}/{name}"] = text
    settings = "\n".join(texts.values())
    for path in re.findall(rf"{ETC}/secrets/[^\"]+", settings):
        assert any(path.startswith(mount["mountPath"] + "/") for mount in container["volumeMounts"]), path
        texts[path] = secret(path)
    for path, text in texts.items():
        file = directory / path.removeprefix(ETC + "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace(ETC, str(directory)))
        file.chmod(0o600)
    fields = {"metadata.name": "r-skylb-5d4c-x7k2p", "status.podIP": address}
    variables = {
        one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        for one in container["env"]
    }
    words = [
        re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], word).replace(ETC, str(directory))
        for word in container["args"]
    ]
    return Launch(made, words, variables)


def secret(path: str) -> str:
    """What a Secret holds, by the name of its key."""
    name = Path(path).name
    certificates = {"tls.crt": "server-1.pem", "tls.key": "server-1.key", "ca.crt": "ca.pem"}
    if name in certificates:
        return (TLS / certificates[name]).read_text()
    if name == "peer.keys":
        return key_line("k1")
    if name == "keys.toml":
        return keys_file()
    return "one-word-of-sixteen\n"


def keys_file() -> str:
    """A file of clients' keys, as the command makes it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "keys.toml"
        path.touch(mode=0o600)
        command = [*SKYLB, "keys", "new", "--file", str(path), "--tenant", "a"]
        subprocess.run(command, capture_output=True, timeout=60, check=True)
        return path.read_text()


# ------------------------------------------------------------------------ the real server


def real_cluster(request: pytest.FixtureRequest) -> Any:
    """A namespace at a real API server, which knows the kinds that the chart can make."""
    try:
        found = request.getfixturevalue("cluster")
    except pytest.FixtureLookupError:
        pytest.skip("needs the fixture of a real API server: make test-kubernetes")
    definitions = [one for path in (tools() / "crds").glob("*.yaml") for one in objects(path.read_text())]
    assert {one["spec"]["names"]["kind"] for one in definitions} == {"ScaledObject", "ServiceMonitor"}
    for definition in definitions:
        define(found, definition)
    return found


def define(cluster: Any, definition: Object) -> None:
    """Makes the API server know a kind, unless it does already."""
    place = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    name = definition["metadata"]["name"]
    known = {one["metadata"]["name"] for one in cluster.ask("GET", place)["items"]}
    if name not in known:
        cluster.ask("POST", place, definition)

    spec = definition["spec"]
    versions = [version["name"] for version in spec["versions"]]

    def served() -> bool:
        """The server lists a new kind a moment after it has accepted it."""
        with suppress(Exception):
            listed = (cluster.ask("GET", f"/apis/{spec['group']}/{version}") for version in versions)
            kinds = [{one["kind"] for one in found["resources"]} for found in listed]
            return all(spec["names"]["kind"] in found for found in kinds)
        return False

    eventually(served, what=f"{name} is served")


def dry_run(cluster: Any, one: Object) -> None:
    """Has the API server check an object in every way, and keep nothing."""
    group = one["apiVersion"]
    base = f"/api/{group}" if "/" not in group else f"/apis/{group}"
    resources = cluster.ask("GET", base)["resources"]
    plural = next(
        found["name"] for found in resources if found["kind"] == one["kind"] and "/" not in found["name"]
    )
    namespace = one["metadata"].get("namespace", cluster.namespace)
    path = f"{base}/namespaces/{quote(namespace)}/{plural}?dryRun=All&fieldValidation=Strict"
    cluster.ask("POST", path, one)
