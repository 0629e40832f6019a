"""The addresses of one balancer: bound together, or none of them."""

import asyncio
import re
import socket
from typing import Any

import pytest

from skylb import ports
from skylb.addresses import ListenAddress
from skylb.config import Settings
from skylb.errors import ListenError


@pytest.mark.parametrize(
    ("field", "flag", "end"), [("listen", "--listen", ""), ("admin", "--admin", ", for 0.1 s now")]
)
def test_an_address_in_use_is_named_with_its_flag(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, field: str, flag: str, end: str
) -> None:
    monkeypatch.setattr(ports, "HAND_OVER_S", 0.1)
    caplog.set_level("INFO", "skylb.listeners")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free, used = ListenAddress("127.0.0.1", 0), ListenAddress("127.0.0.1", taken.getsockname()[1])
        given: dict[str, Any] = {"replica": ("http://a",), "listen": (free,), "admin": free}
        settings = Settings(**given | {field: (used,) if field == "listen" else used})
        said = f"{flag}: cannot listen on {used}: already in use{end}"
        with pytest.raises(ListenError, match=f"^{re.escape(said)}$") as caught:
            asyncio.run(ports.Ports.bind(settings))
    assert caught.value.in_use
    waiting = f"cannot listen on {used}: already in use; waiting for it for 0.1 s"
    assert [record.message for record in caplog.records] == ([waiting] if end else [])
