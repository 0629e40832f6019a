"""The plain manifests say what the chart says, and are as valid."""

import tomllib
from pathlib import Path

import pytest

from skylb import _core
from tests.kubernetes.charts import (
    PLAIN,
    READS_SLICES,
    Object,
    dry_run,
    invalid,
    launch,
    objects,
    of_kind,
    real_cluster,
    rendered,
)

VALUES = f"""
fullnameOverride: skylb
image: {{repository: registry.example.net/skylb, tag: {_core.__version__}}}
discovery: {{selector: kubernetes.io/service-name=vllm}}
secrets: {{peerKeys: {{name: skylb-peers}}}}
"""


@pytest.fixture
def plain() -> list[Object]:
    return [one for path in PLAIN for one in objects(path.read_text())]


def test_they_are_valid(plain: list[Object]) -> None:
    assert len(plain) > 8
    assert invalid(plain) == ""


def test_they_name_no_namespace_but_that_of_the_bound_account(plain: list[Object]) -> None:
    assert not [one for one in plain if "namespace" in one["metadata"]]


def test_their_account_may_list_and_watch_slices_and_nothing_else(plain: list[Object]) -> None:
    assert [role["rules"] for role in of_kind(plain, "Role")] == [READS_SLICES]
    assert not of_kind(plain, "ClusterRole")


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_they_make_what_the_chart_makes(family: str) -> None:
    def names(found: list[Object]) -> set[tuple[str, str]]:
        return {(one["kind"], one["metadata"]["name"].removesuffix("-default")) for one in found}

    text = "\n---\n".join(path.read_text() for path in PLAIN)
    if family == "IPv6":  # as the first comment says
        text = text.replace("--peer-listen=$(POD_IP):8091", '"--peer-listen=[$(POD_IP)]:8091"')
        text = text.replace("0.0.0.0", "[::]")
    plain, chart = objects(text), rendered(f"{VALUES}ipFamily: {family}\n")
    assert names(plain) == names(chart)
    ours, theirs = (of_kind(found, "Deployment")[0]["spec"]["template"]["spec"] for found in (plain, chart))
    for one in (ours, theirs):
        one["containers"][0].pop("imagePullPolicy", None)
        one.pop("topologySpreadConstraints")
        one["volumes"] = [{**volume, "name": "any"} for volume in one["volumes"]]
        for mount in one["containers"][0]["volumeMounts"]:
            mount["name"] = "any"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            one["containers"][0][probe] = defaults(one["containers"][0][probe])
    assert ours == theirs
    files = [of_kind(found, "ConfigMap")[0]["data"]["skylb.toml"] for found in (plain, chart)]
    mine, its = (tomllib.loads(file) for file in files)
    assert mine == its


def defaults(probe: Object) -> Object:
    """A probe with what the API server would fill in."""
    return {"periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3, **probe}


def test_the_program_takes_their_flags_and_files(plain: list[Object], tmp_path: Path) -> None:
    started = launch(plain, tmp_path)
    assert started.unknown() == set()
    checked = started.check()
    assert checked.returncode == 0, checked.stderr


def test_the_api_server_takes_them(plain: list[Object], request: pytest.FixtureRequest) -> None:
    cluster = real_cluster(request)
    for one in plain:
        dry_run(cluster, one)
