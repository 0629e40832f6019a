"""Asks the admin listener of a running balancer."""

import http.client
import json
import socket
from typing import Annotated, Any

from pydantic import Field

from skylb.addresses import ListenAddress
from skylb.errors import SkyLBError
from skylb.keyfiles import read_secret
from skylb.settings.values import FILE, LISTEN, File, Group, Listen

ADMIN_TIMEOUT_S = 5.0
"""How long the admin listener may take to connect and to answer."""

ANSWER_BYTES_MAX = 64 << 20


class AdminSettings(Group):
    """The balancer to ask."""

    admin: Annotated[Listen, LISTEN, Field(description="Address of the balancer's admin listener.")] = (
        ListenAddress("127.0.0.1", 8081)
    )
    admin_token_file: Annotated[
        File | None, FILE, Field(description="File with the bearer token of the admin listener.")
    ] = None


def ask(settings: AdminSettings, method: str, path: str, body: bytes | None = None) -> Any:
    """One request to the admin listener, and the JSON of its answer.

    Args:
        settings: which balancer, and the token that it wants.
        method: such as ``GET``.
        path: such as ``/peers``. The caller has quoted what is not fit for a URL.
        body: JSON to send.

    Raises:
        SkyLBError: nobody answers, or the answer is a refusal: its message.
        ConfigError: the token's file cannot be read.
    """
    admin = settings.admin
    token = read_secret(settings.admin_token_file, "admin_token_file")
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection = _Connection(admin)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        said = json.loads(answer.read(ANSWER_BYTES_MAX))
    except (OSError, http.client.HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SkyLBError(f"{admin}: no answer: {error}") from error
    finally:
        connection.close()
    if answer.status >= 300:
        raise SkyLBError(f"{admin}: {_message(said, answer.status)}")
    return said


def _message(said: Any, status: int) -> str:
    error = said.get("error") if isinstance(said, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else f"status {status}"


class _Connection(http.client.HTTPConnection):
    """To an address of any kind."""

    def __init__(self, address: ListenAddress) -> None:
        super().__init__("localhost" if address.unix else address.host, address.port, timeout=ADMIN_TIMEOUT_S)
        self._address = address

    def connect(self) -> None:
        """TCP, or a Unix socket."""
        if not self._address.unix:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ADMIN_TIMEOUT_S)
        self.sock.connect(self._address.host)
