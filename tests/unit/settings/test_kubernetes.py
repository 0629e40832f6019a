"""Settings of Kubernetes: what is valid, and what each fault says."""

from pathlib import Path

import pytest

from skylb.config import Settings
from skylb.errors import ConfigError
from skylb.options import load
from skylb.settings import kubernetes
from skylb.settings.kubernetes import read_service


def settings(**flags: list[str]) -> Settings:
    return load(Settings, flags={name.replace("__", "."): values for name, values in flags.items()}).settings


def faults(**flags: list[str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings(**flags)
    return caught.value.faults


@pytest.mark.parametrize(
    "selector",
    [
        "app=vllm",
        "app==vllm",
        "kubernetes.io/service-name=vllm",
        "app=vllm,tier!=test",
        "app in (vllm, sglang),tier notin (test)",
        "app in(vllm)",
        "app",
        "!app",
        " app = vllm , ! tier ",
        "app=",
    ],
)
def test_label_selectors_are_those_of_kubernetes(selector: str) -> None:
    found = settings(kubernetes__selector=[selector])
    assert found.kubernetes.selector == selector


@pytest.mark.parametrize(
    "selector",
    [
        "",
        "=vllm",
        "app=a b",
        "app=vllm,",
        ",app",
        "app in vllm",
        "app in ()x",
        "a/b/c=1",
        "-a=1",
        "a=" + "x" * 64,
        "a," * 600 + "a",
    ],
)
def test_what_is_no_label_selector_is_a_fault(selector: str) -> None:
    found = faults(kubernetes__selector=[selector])
    assert len(found) == 1
    assert "expected a label selector, as kubernetes.io/service-name=vllm" in found[0]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("namespace", "No_Namespace", "the name of a namespace"),
        ("namespace", "x" * 64, "the name of a namespace"),
        ("port", "0", "the name of a port, or its number from 1 to 65535"),
        ("port", "65536", "the name of a port, or its number from 1 to 65535"),
        ("port", "Http", "the name of a port, or its number from 1 to 65535"),
        ("config", "/nowhere/config", "the path of a file"),
    ],
)
def test_values_that_are_no_good_are_named(option: str, value: str, expected: str) -> None:
    found = faults(kubernetes__selector=["app=vllm"], **{f"kubernetes__{option}": [value]})
    assert len(found) == 1
    assert f"kubernetes-{option}" in found[0]
    assert f"expected {expected}" in found[0]


def test_a_port_is_a_number_in_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "skylb.toml"
    path.write_text('[kubernetes]\nselector = "app=vllm"\nport = 8000\nnamespace = ["a", "b"]\n')
    found = load(Settings, flags={}, file=path).settings.kubernetes
    assert (found.port, found.namespace) == ("8000", ("a", "b"))


def test_namespace_and_port_mean_nothing_without_a_selector_nor_does_a_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("")
    found = faults(
        replica=["http://10.0.0.1:1"],
        kubernetes__namespace=["a"],
        kubernetes__port=["1"],
        kubernetes__config=[str(tmp_path / "config")],
    )
    assert [fault.partition(": expected")[0].rpartition(": ")[2] for fault in found] == [
        "kubernetes.config is given without kubernetes.selector or peer_kubernetes_service",
        "kubernetes.namespace is given without kubernetes.selector",
        "kubernetes.port is given without kubernetes.selector",
    ]


def test_a_namespace_that_is_given_twice_is_a_fault() -> None:
    found = faults(kubernetes__selector=["app=vllm"], kubernetes__namespace=["a", "b", "a"])
    assert "a is given twice: expected distinct namespaces" in found[0]


def test_without_the_library_the_fault_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "find_spec", lambda _: None)
    found = faults(kubernetes__selector=["app=vllm"])
    assert "kubernetes.selector: kubernetes-asyncio is not installed: " in found[0]


@pytest.mark.parametrize(
    ("text", "service"),
    [("skylb", ("skylb", None)), ("skylb.llm", ("skylb", "llm")), ("a-b.c-d", ("a-b", "c-d"))],
)
def test_a_service_has_a_name_and_may_have_a_namespace(text: str, service: tuple[str, str | None]) -> None:
    assert read_service(text) == service


@pytest.mark.parametrize("text", ["", ".", "skylb.", ".llm", "a.b.c", "A", "a_b"])
def test_what_is_no_service_is_a_fault(text: str) -> None:
    with pytest.raises(ValueError, match="neither NAME nor"):
        read_service(text)


def test_peers_by_service_need_the_name_of_this_balancer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k1:MDEyMzQ1Njc4OWFiY2RlZg==\n")
    given = {
        "replica": ["http://10.0.0.9:8000"],
        "peer_kubernetes_service": ["skylb"],
        "peer_key_file": [str(keys)],
        "peer_listen": ["10.0.0.1:9000"],
        "sync_listen": ["10.0.0.1:9001"],
    }
    assert "given without name: expected the name of this pod as well" in faults(**given)[0]
    assert settings(**given, name=["skylb-0"]).mesh.balancer == "skylb-0"
    monkeypatch.setattr(kubernetes, "find_spec", lambda _: None)
    assert (
        "peer_kubernetes_service: kubernetes-asyncio is not installed" in faults(**given, name=["skylb-0"])[0]
    )
