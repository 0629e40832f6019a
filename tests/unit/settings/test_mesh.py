"""Settings of the mesh: what is accepted, and every mistake with its own sentence."""

from pathlib import Path

import pytest

from skylb.config import Settings
from skylb.errors import ConfigError
from skylb.options import load

REPLICA = {"replica": ["http://10.0.0.9:8000"]}


@pytest.fixture
def flags(tmp_path: Path) -> dict[str, list[str]]:
    """What a balancer with peers needs besides them."""
    keys = tmp_path / "keys"
    keys.write_text("k1:MDEyMzQ1Njc4OWFiY2RlZg==\n")
    return REPLICA | {
        "region": ["us"],
        "peer_key_file": [str(keys)],
        "peer_listen": ["10.0.0.1:9000"],
        "sync_listen": ["10.0.0.1:9001"],
    }


def faults(flags: dict[str, list[str]], **changed: list[str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(Settings, flags=flags | changed)
    return caught.value.faults


def test_a_peer_is_a_name_a_sync_url_and_perhaps_a_forward_url(flags: dict[str, list[str]]) -> None:
    peers = ["eu=http://eu.example:9001", "asia=https://10.0.0.3:9001,http://10.0.0.3:9000"]
    mesh = load(Settings, flags=flags | {"peer": peers}).settings.mesh
    assert [str(peer) for peer in mesh.peer] == peers
    assert mesh.peer[0].forward is None
    assert (mesh.balancer, mesh.region) == ("us", "us")


def test_a_balancer_has_a_name_of_its_own_where_a_region_has_several(flags: dict[str, list[str]]) -> None:
    mesh = load(
        Settings, flags=flags | {"name": ["us-2"], "peer": ["us-1=http://10.0.0.2:9001"]}
    ).settings.mesh
    assert (mesh.balancer, mesh.region) == ("us-2", "us")


def test_a_variable_lists_peers_with_and_without_forward_urls(flags: dict[str, list[str]]) -> None:
    text = "eu=http://10.0.0.2:1,http://10.0.0.2:2, asia=http://10.0.0.3:1"
    mesh = load(Settings, flags=flags, variables={"SKYLB_PEER": text}).settings.mesh
    assert [str(peer) for peer in mesh.peer] == [
        "eu=http://10.0.0.2:1,http://10.0.0.2:2",
        "asia=http://10.0.0.3:1",
    ]


@pytest.mark.parametrize(
    ("peers", "fault"),
    [
        (["us=http://10.0.0.2:1"], "peer: us=http://10.0.0.2:1 is this balancer itself: expected others"),
        (
            ["eu=http://10.0.0.1:9001"],
            "peer: eu=http://10.0.0.1:9001 is this balancer itself: expected others",
        ),
        (["eu=http://10.0.0.2:1"] * 2, "peer: eu=http://10.0.0.2:1 is given twice: expected distinct peers"),
        (
            ["eu=http://10.0.0.2:1", "eu=http://10.0.0.3:1"],
            "peer: two peers are called eu: expected one of each name",
        ),
        (
            ["eu=http://10.0.0.2:1", "asia=http://10.0.0.2:1"],
            "peer: two peers are at http://10.0.0.2:1: expected distinct addresses",
        ),
    ],
)
def test_a_list_of_peers_that_cannot_be_meant_is_one_fault(
    flags: dict[str, list[str]], peers: list[str], fault: str
) -> None:
    assert faults(flags, peer=peers) == [fault]


@pytest.mark.parametrize(
    "text",
    [
        "eu",
        "=http://10.0.0.2:1",
        "e u=http://10.0.0.2:1",
        "eu=ftp://10.0.0.2:1",
        "eu=unix:/run/x",
        "eu=http://10.0.0.2:1/sync",
        "eu=http://10.0.0.2:1,",
        "eu=http://user@10.0.0.2:1",
    ],
)
def test_a_peer_that_is_written_wrongly_is_told_how(flags: dict[str, list[str]], text: str) -> None:
    (fault,) = faults(flags, peer=[text])
    shown = text.replace("//user@", "//...@")  # no credentials
    assert fault.startswith(f"--peer: {shown!r}: expected NAME=SYNC_URL")


@pytest.mark.parametrize("missing", ["peer_key_file", "peer_listen", "sync_listen"])
def test_peers_need_a_key_and_both_listeners(flags: dict[str, list[str]], missing: str) -> None:
    del flags[missing]
    assert faults(flags, peer=["eu=http://10.0.0.2:1"]) == [f"peer is given without {missing}: expected both"]


def test_listeners_of_the_mesh_need_peers_and_addresses_of_their_own(flags: dict[str, list[str]]) -> None:
    assert faults(flags) == ["peer_listen is given without peer: expected both"]
    peer = ["eu=http://10.0.0.2:1"]
    assert faults(flags, peer=peer, sync_listen=["10.0.0.1:9000"]) == [
        "sync_listen: 10.0.0.1:9000 is also in peer_listen: expected another address"
    ]
    assert faults(flags, peer=peer, listen=["10.0.0.1:9000"]) == [
        "peer_listen: 10.0.0.1:9000 is also in listen: expected another address"
    ]


def test_a_wildcard_tells_no_peer_where_to_connect(flags: dict[str, list[str]]) -> None:
    changed = {"peer": ["eu=http://10.0.0.2:1"], "peer_listen": ["0.0.0.0:9000"]}
    (fault,) = faults(flags, **changed)
    assert "expected advertise as well" in fault
    assert load(
        Settings, flags=flags | changed | {"advertise": ["http://us.example:9000"]}
    ).settings.mesh.advertise


@pytest.mark.parametrize("option", ["region", "name"])
def test_a_name_is_fit_for_headers_labels_and_logs(flags: dict[str, list[str]], option: str) -> None:
    for text in ("", "a b", "a;b", "x" * 65, "\u00e9", "-a"):
        assert faults(flags, **{option: [text], "peer": ["eu=http://10.0.0.2:1"]})


def test_residency_is_told_by_tenant_and_model() -> None:
    rules = ["*/meta/llama=eu", "acme/*=eu+us", "*/*=eu"]
    changed = REPLICA | {"residency": rules, "tenant_header": ["X-Tenant"]}
    mesh = load(Settings, flags=changed).settings.mesh
    assert [str(rule) for rule in mesh.residency] == rules
    assert [(rule.tenant, rule.model, rule.regions) for rule in mesh.residency] == [
        (None, "meta/llama", ("eu",)),
        ("acme", None, ("eu", "us")),
        (None, None, ("eu",)),
    ]


@pytest.mark.parametrize(
    "text", ["", "eu", "acme=eu", "acme/*", "acme/*=", "/m=eu", "acme/=eu", "*/*=eu,us", "*/*=e u"]
)
def test_a_rule_of_residency_that_is_written_wrongly_is_told_how(text: str) -> None:
    (fault,) = faults(REPLICA, residency=[text])
    assert "expected TENANT/MODEL=REGION" in fault


def test_a_rule_for_a_tenant_needs_something_that_tells_tenants() -> None:
    assert faults(REPLICA, residency=["acme/*=eu"]) == [
        "residency names acme: expected tenant_header or tenant_key_file too"
    ]
