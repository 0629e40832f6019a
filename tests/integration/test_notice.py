"""A replica that is announced to end: by an operator, or by the metadata of a spot instance."""

import json
import re
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from skylb.addresses import parse_listen
from skylb.tools.operate.drain import LeaveSettings, ReplicaSettings, leave, undrain
from tests.support.processes import PATIENCE_S, Balancer, balancer, eventually, mocks

ROOT = Path(__file__).resolve().parents[2]
LINES = re.findall(r"```sh\n(.+)\n```", (ROOT / "docs" / "OPERATIONS.md").read_text())
"""What operators copy: the line for AWS, and the one for Google Cloud."""

TWO_LOOKS = 2


@pytest.fixture(scope="module")
def front() -> Iterator[Balancer]:
    with mocks(2) as urls, balancer(*urls) as found:
        yield found


def rows(front: Balancer) -> dict[str, dict[str, Any]]:
    """The replicas by name."""
    return {row["name"]: row for row in front.state()["engine"]["replicas"]}


def called(front: Balancer, method: str, path: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a call of the admin listener."""
    request = urllib.request.Request(f"{front.admin}{path}", method=method, data=b"")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@contextmanager
def metadata(warning: str) -> Iterator[str]:
    """A metadata server of both kinds, which warns from the third look on; its URL."""
    looks = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._say(200, "token")

        def do_GET(self) -> None:
            looks.append(self.path)
            aws = self.headers.get("X-aws-ec2-metadata-token") == "token"
            google = self.headers.get("Metadata-Flavor") == "Google"
            assert aws or google
            if len(looks) > TWO_LOOKS:
                self._say(200, warning)
            else:
                self._say(404 if aws else 200, "FALSE")

        def _say(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert len(looks) == TWO_LOOKS + 1, looks


def test_a_notice_drains_is_shown_and_is_taken_back(front: Balancer) -> None:
    name = next(iter(rows(front)))
    at = name.removeprefix("http://")
    status, said = called(front, "POST", f"/replicas/{at}/leave?in=120")
    assert (status, said["replica"], said["draining"], said["leaves_in_s"]) == (200, name, True, 120)
    row = rows(front)[name]
    assert row["draining"]
    assert 0 < row["leaves_in_s"] <= 120
    status, said = called(front, "DELETE", f"/replicas/{at}/leave")
    assert (status, said["draining"]) == (200, False)
    row = rows(front)[name]
    assert (row["draining"], row["leaves_in_s"]) == (False, None)


@pytest.mark.parametrize("query", ["", "in=soon", "in=-1", "in=nan", "in=86401", "at=5", "in=5&at=5"])
def test_a_notice_without_a_time_is_refused(front: Balancer, query: str) -> None:
    name = next(iter(rows(front))).removeprefix("http://")
    status, said = called(front, "POST", f"/replicas/{name}/leave?{query}")
    assert (status, said["error"]["code"]) == (400, "bad_query")
    assert called(front, "POST", "/replicas/nobody:1/leave?in=5")[0] == 404
    assert not any(row["draining"] for row in rows(front).values())


def test_the_command_says_what_will_happen(front: Balancer) -> None:
    name = next(iter(rows(front)))
    admin = parse_listen(front.admin.removeprefix("http://"))
    text = leave(LeaveSettings(admin=admin, replica=name, in_=60))
    assert text.splitlines()[0] == f"{name} ends in 60 s: it gets no new requests from this balancer."
    assert "gets requests again" in undrain(ReplicaSettings(admin=admin, replica=name))


@pytest.mark.parametrize(
    ("line", "warning"), list(zip(LINES, ['{"action": "terminate"}', "TRUE"], strict=True))
)
def test_the_warning_of_a_spot_instance_reaches_skylb_by_the_line_of_the_documents(
    front: Balancer, line: str, warning: str
) -> None:
    name = next(iter(rows(front)))
    with metadata(warning) as url:
        environment = {
            "PATH": "/usr/bin:/bin",
            "IMDS": url,
            "GCE": url,
            "PAUSE_S": "0.05",
            "SKYLB": front.admin,
            "REPLICA": name.removeprefix("http://"),
        }
        done = subprocess.run(
            ["bash", "-c", line], env=environment, capture_output=True, timeout=PATIENCE_S, check=True
        )
    assert b'"draining":true' in done.stdout
    eventually(lambda: rows(front)[name]["leaves_in_s"] is not None, what="the notice is known")
    called(front, "DELETE", f"/replicas/{name.removeprefix('http://')}/leave")
