"""`skylb serve` as a process: how it starts, what it says, how it ends."""

import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from skylb.addresses import parse_replica
from tests.support.processes import (
    PATIENCE_S,
    SKYLB,
    Child,
    answers,
    balancer,
    eventually,
    get,
    mocks,
    standing_still,
)
from tests.support.report import started, status_of

pytestmark = pytest.mark.any_clock

MESSAGES = [{"role": "user", "content": "Hello"}]

DOWN = "http://127.0.0.1:9"
"""Port 9 (discard): nobody answers there."""


@contextmanager
def start(*arguments: str, replica: str = DOWN) -> Iterator[tuple[Child, str, str]]:
    """A balancer on free ports, once it has printed its report; the clients' and the admin's URL."""
    balancer = started("--replica", replica, *arguments)
    try:
        yield balancer.child, balancer.clients[0], balancer.admin
    finally:
        balancer.child.stop()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [*SKYLB, *arguments], capture_output=True, text=True, timeout=4 * PATIENCE_S, check=False
    )


def test_a_bad_configuration_ends_with_status_2_and_all_its_faults() -> None:
    ended = run("serve", "--listen", "nowhere", "--polcy", "x", "--hold-len-max", "many")
    assert ended.returncode == 2
    assert ended.stdout == ""
    for part in (
        "4 faults",
        "--listen: 'nowhere': expected",
        "--polcy: unknown",
        "'many': expected",
        "no replicas",
    ):
        assert part in ended.stderr


def test_a_port_in_use_ends_with_status_1_and_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("serve", "--replica", DOWN, "--listen", address, "--admin", "127.0.0.1:0")
    assert ended.returncode == 1
    assert ended.stderr == f"skylb: --listen: cannot listen on {address}: already in use\n"


def test_an_access_log_that_cannot_be_opened_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    log = tmp_path / "none" / "log"
    ended = run("serve", "--replica", DOWN, "--listen", "127.0.0.1:0", "--access-log", str(log))
    assert ended.returncode == 2
    assert f"access_log: {log}: cannot be opened" in ended.stderr


def test_files_that_hold_something_else_are_faults_told_together(tmp_path: Path) -> None:
    (tmp_path / "nonsense").write_text("two words")
    nonsense = str(tmp_path / "nonsense")
    files = [
        word
        for flag in ("tls-cert", "tls-key", "replica-ca", "admin-token-file", "replica-key-file")
        for word in (f"--{flag}", nonsense)
    ]
    for command in (["serve"], ["config", "check"]):
        ended = run(*command, "--replica", DOWN, *files)
        assert ended.returncode == 2
        assert "4 faults" in ended.stderr
        for name in ("tls_cert", "replica_ca", "admin_token_file", "replica_key_file"):
            assert f"{name}: {nonsense}" in ended.stderr


def test_a_replicas_file_that_is_none_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "replicas").write_text("http://a:1\nnonsense\n")
    listen = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    ended = run("serve", *listen, "--replicas-file", str(tmp_path / "replicas"))
    assert ended.returncode == 2
    assert "nonsense" in ended.stderr


def test_replicas_that_are_down_are_reported_and_are_no_error() -> None:
    with start() as (child, clients, admin):
        assert re.search(rf"^  replica  {DOWN}  down", child.text(), re.MULTILINE)
        assert status_of(f"{admin}/health") == 200
        assert status_of(f"{admin}/ready") == 503
        assert status_of(f"{clients}/v1/chat/completions") == 405
        assert child.stop(PATIENCE_S) == 0


def test_the_line_to_try_works() -> None:
    with mocks(1, "--profile", "instant") as urls, start(replica=urls[0]) as (child, _, _):
        line = re.search(r"^try: (curl .*)$", child.text(), re.MULTILINE)
        assert line is not None
        answer = subprocess.run(
            line[1], shell=True, capture_output=True, text=True, timeout=4 * PATIENCE_S, check=True
        )
        assert answer.stdout.rstrip().endswith("data: [DONE]")


def test_sigterm_lets_a_stream_end_and_turns_new_clients_away() -> None:
    with mocks(1, "--time-scale", "0.2") as urls, start(replica=urls[0]) as (child, clients, admin):
        body = {"model": "mock", "stream": True, "max_tokens": 200, "messages": MESSAGES}
        request = urllib.request.Request(
            f"{clients}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as stream:
            first = stream.readline()
            with standing_still(*urls):
                child.send(signal.SIGTERM)
                eventually(lambda: status_of(f"{admin}/ready") == 503, what="not ready")
                assert not answers(f"{clients}/v1/models")  # refused, or reset where it was in the backlog
            rest = stream.read()
        assert (first + rest).rstrip().endswith(b"data: [DONE]")
        assert child.popen.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_at_once() -> None:
    with (
        mocks(1, "--time-scale", "20") as urls,
        start(replica=urls[0]) as (child, clients, admin),
        closing(socket.create_connection(address_of(clients))) as client,
    ):
        body = json.dumps({"model": "mock", "messages": MESSAGES}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        eventually(lambda: requests_under_way(admin) == 1, what="request under way")
        child.send(signal.SIGTERM)
        eventually(lambda: status_of(f"{admin}/ready") == 503, what="not ready")
        assert child.alive()
        child.send(signal.SIGINT)
        assert child.popen.wait(PATIENCE_S) == 0


def address_of(url: str) -> tuple[str, int]:
    """Host and port."""
    where = parse_replica(url)
    return where.host, where.port


def requests_under_way(admin: str) -> int:
    """What ``/state`` says of the process."""
    return int(json.loads(get(f"{admin}/state"))["process"]["requests"])


def test_sighup_reads_the_token_again_and_keeps_the_old_one_where_the_file_is_broken(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with start("--admin-token-file", str(token)) as (child, _, admin):
        assert status_of(f"{admin}/state", token="first") == 200
        token.write_text("second\n")
        child.send(signal.SIGHUP)
        eventually(lambda: status_of(f"{admin}/state", token="second") == 200, what="new token")
        assert status_of(f"{admin}/state", token="first") == 401
        token.write_text("")
        child.send(signal.SIGHUP)
        eventually(lambda: "not renewed: admin_token_file" in child.text(), what="fault in the log")
        assert status_of(f"{admin}/state", token="second") == 200


def test_unix_sockets_serve_and_are_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "clients.sock"
    with start("--listen", "127.0.0.1:0", "--listen", f"unix:{path}") as (child, _, _):
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(path))
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 ")
        assert child.stop(PATIENCE_S) == 0
    assert not path.exists()


def test_drain_and_undrain_reach_the_engine() -> None:
    with mocks(1, "--profile", "instant") as urls, start(replica=urls[0]) as (_, _, admin):
        eventually(lambda: status_of(f"{admin}/ready") == 200, what="ready")
        assert status_of(f"{admin}/replicas/{urls[0]}/drain", method="POST") == 200
        assert status_of(f"{admin}/ready") == 503
        assert status_of(f"{admin}/replicas/{urls[0]}/undrain", method="POST") == 200
        eventually(lambda: status_of(f"{admin}/ready") == 200, what="ready again")


def test_where_logs_are_json_every_byte_is_of_a_json_line() -> None:
    with mocks(1) as urls, balancer(*urls, arguments=["--log-level", "debug"]) as front:
        get(f"{front.url}/v1/models")
        front.child.send(signal.SIGHUP)
        front.child.require(lambda: "read again" in front.child.text(), what="renewed")
        second = subprocess.run(
            [
                *SKYLB,
                "serve",
                "--replica",
                urls[0],
                "--listen",
                f"127.0.0.1:{front.port}",
                "--log-format",
                "json",
            ],
            capture_output=True,
            check=False,
        )
        lines = [json.loads(line) for line in front.child.text().splitlines()]
    assert lines[0]["level"] in {"info", "warning", "debug"}
    assert any(line["message"].startswith("ready: SkyLB") for line in lines)
    assert second.returncode == 1
    assert second.stdout == b""
    (told,) = [json.loads(line) for line in second.stderr.decode().splitlines()][-1:]
    assert told["level"] == "error"
    assert f"127.0.0.1:{front.port}" in told["message"]
