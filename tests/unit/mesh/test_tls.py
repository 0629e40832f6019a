"""Whose certificate a peer shows."""

import asyncio
from pathlib import Path

import pytest

from skylb.mesh.tls import MeshTls
from skylb.settings.mesh import MeshSettings

TLS = Path(__file__).parents[2] / "support" / "tls"


class Shown(asyncio.BaseTransport):
    """A connection on which a certificate for these names was shown; without TLS where there are none."""

    def __init__(self, *names: tuple[str, str]) -> None:
        super().__init__({"ssl_object": self if names else None})
        self._names = names

    def getpeercert(self) -> dict[str, object]:
        return {"subjectAltName": self._names}


def tls(**changed: Path | None) -> MeshTls:
    files: dict[str, Path | None] = {"peer_tls_ca": TLS / "ca.pem"}
    files |= {"peer_tls_cert": TLS / "server-1.pem", "peer_tls_key": TLS / "server-1.key"}
    return MeshTls(MeshSettings.model_validate(files | changed))


@pytest.mark.parametrize(
    ("shown", "host", "covers"),
    [
        (("DNS", "us.example.net"), "us.example.net", True),
        (("DNS", "US.example.net"), "us.Example.net.", True),
        (("DNS", "*.example.net"), "us.example.net", True),
        (("DNS", "us"), "us", True),
        (("IP Address", "0:0:0:0:0:0:0:1"), "::1", True),
        (("DNS", "eu.example.net"), "us.example.net", False),
        (("DNS", "*.example.net"), "a.us.example.net", False),
        (("DNS", "*.example.net"), "example.net", False),
        (("DNS", "*"), "us", False),
        (("IP Address", "10.0.0.1"), "10.0.0.2", False),
        (("URI", "us"), "us", False),
    ],
)
def test_a_certificate_is_for_the_names_in_it(shown: tuple[str, str], host: str, covers: bool) -> None:
    assert tls().shows(Shown(shown), ("somebody.else", host)) is covers


def test_who_must_show_a_certificate_and_shows_none_speaks_for_nobody() -> None:
    assert tls().shows(Shown(), ("us",)) is False
    assert tls().shows(None, ("us",)) is False


def test_where_no_certificate_is_asked_for_none_is_looked_at() -> None:
    assert tls(peer_tls_ca=None).shows(Shown(), ("us",)) is True
