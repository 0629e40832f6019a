"""Settings of DNS: what is accepted, and every mistake with its own sentence."""

import base64
from pathlib import Path

import pytest

from skylb.config import Settings
from skylb.errors import ConfigError
from skylb.options import load
from skylb.parts import check_files

GOOD = {
    "replica": ["http://10.0.0.9:8000"],
    "dns.provider": ["rfc2136"],
    "dns.name": ["api.example.org"],
    "dns.zone": ["example.org"],
    "dns.server": ["192.0.2.53:53"],
    "dns.address": ["192.0.2.1", "2001:db8::1"],
}


def faults(flags: dict[str, list[str]]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_files(load(Settings, flags=flags).settings)
    return caught.value.faults


def test_what_a_provider_needs_is_enough(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(f"hmac-sha256:skylb:{base64.b64encode(b'x' * 32).decode()}\n")
    loaded = load(Settings, flags=GOOD | {"dns.key_file": [str(key)]})
    check_files(loaded.settings)
    assert [str(address) for address in loaded.settings.dns.address] == GOOD["dns.address"]


@pytest.mark.parametrize("name", ["dns.name", "dns.zone", "dns.server", "dns.address"])
def test_what_is_missing_is_named(name: str) -> None:
    flags = {key: value for key, value in GOOD.items() if key != name}
    assert faults(flags) == [f"dns.provider is rfc2136 without {name}: expected both"]


def test_without_a_provider_the_rest_would_do_nothing() -> None:
    flags = {key: value for key, value in GOOD.items() if key in {"replica", "dns.name"}}
    assert faults(flags) == ["dns.name is given without dns.provider: expected both"]


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"dns.address": ["0.0.0.0"]}, "dns.address: 0.0.0.0: expected the address of one machine"),
        ({"dns.address": ["ff02::1"]}, "dns.address: ff02::1: expected the address of one machine"),
        (
            {"dns.server": ["ns.example.org:53"]},
            "dns.server: ns.example.org:53: expected an IP address and a",
        ),
        ({"dns.name": ["api.example.net"]}, "dns: api.example.net is not in the zone example.org"),
    ],
)
def test_values_that_cannot_be_meant_are_faults(changed: dict[str, list[str]], fault: str) -> None:
    (found,) = faults(GOOD | changed)
    assert found.startswith(fault)


def test_a_key_that_is_none_is_a_fault_that_does_not_tell_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("hmac-sha256:geheim\n")
    (found,) = faults(GOOD | {"dns.key_file": [str(key)]})
    assert found.startswith("dns: expected ALGORITHM:NAME:BASE64")
    assert "geheim" not in found
