"""`skylb serve` on free ports: what its report says is where it is."""

import re
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass

from tests.support.processes import PATIENCE_S, SKYLB, Child


@dataclass
class Started:
    """A balancer that has printed its report."""

    child: Child
    clients: list[str]
    admin: str

    def ready(self) -> bool:
        """Whether ``/ready`` says so."""
        return status_of(f"{self.admin}/ready") == 200

    def client_address(self, index: int = 0) -> tuple[str, int]:
        """Host and port of one of the clients' TCP listeners."""
        host, _, port = self.clients[index].partition("://")[2].rpartition(":")
        return host.strip("[]"), int(port)


def started(*arguments: str) -> Started:
    """Starts a balancer; its first listener is a free port of loopback."""
    listen = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
    child = Child([*SKYLB, "serve", *listen, "--admin", "127.0.0.1:0", *arguments])
    with ExitStack() as undo:
        undo.callback(child.stop)
        child.require(lambda: "try: curl" in child.text(), timeout_s=PATIENCE_S, what="report")
        undo.pop_all()
    lines = re.findall(r"^  (clients|admin) +(\S+)$", child.text(), re.MULTILINE)
    return Started(child, [where for kind, where in lines if kind == "clients"], dict(lines)["admin"])


def status_of(url: str, *, method: str = "GET", token: str | None = None) -> int:
    """The status of one request."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
