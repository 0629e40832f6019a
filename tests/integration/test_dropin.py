"""The documented command lines of other routers, with the name of the program replaced: they serve, or are
answered with the line to use. Hosts and ports are those of the test.
"""

import json
import re
import shlex
import signal
import subprocess
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import (
    PATIENCE_S,
    SKYLB,
    Balancer,
    Child,
    answers,
    balancer,
    eventually,
    free_port,
    get,
    mocks,
    sample_sum,
)
from tests.support.report import status_of

pytestmark = pytest.mark.any_clock

LINES = tomllib.loads((Path(__file__).parents[1] / "data" / "router_lines.toml").read_text())
SERVING = {row["name"]: row["line"] for row in LINES["serving"]}
ANSWERED = {row["name"]: (row["line"], row["instead"]) for row in LINES["answered"]}
"""A documented command line, and the line to use."""


@dataclass
class Served:
    """A balancer that was started by a command line of another router."""

    child: Child
    port: int
    metrics: str


@contextmanager
def serving(line: str, urls: list[str]) -> Iterator[Served]:
    port, metrics = free_port(), free_port()
    words = shlex.split(line.format(urls=" ".join(urls), list=",".join(urls), metrics=metrics))
    if "--static-backends" in words:
        words += ["--admin", f"127.0.0.1:{metrics}"]
    elif "--prometheus-port" not in words:
        words += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)]
    child = Child([*SKYLB, *words, "--port", str(port)])
    try:
        child.require(lambda: "try: curl" in child.text(), timeout_s=PATIENCE_S, what="report")
        yield Served(child, port, f"http://127.0.0.1:{metrics}/metrics")
    finally:
        child.stop()


def chat(port: int) -> int:
    """The status of one request."""
    body = json.dumps({"model": "mock", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]})
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return int(answer.status)


@pytest.fixture(scope="module")
def urls() -> Iterator[list[str]]:
    with mocks(2, "--profile", "instant") as found:
        yield found


@pytest.mark.parametrize("name", SERVING)
def test_a_documented_command_line_starts_and_serves(name: str, urls: list[str]) -> None:
    with serving(SERVING[name], urls) as served:
        text = served.child.text()
        assert text.startswith("skylb: flags of ")
        assert text.count("with SkyLB's own flags: skylb serve ") == 1
        assert all(re.search(rf"^  replica  {url}  up$", text, re.MULTILINE) for url in urls)
        assert [chat(served.port) for _ in range(2)] == [200, 200]
        for probe in ("health", "readiness", "liveness"):
            assert answers(f"http://127.0.0.1:{served.port}/{probe}")
        assert sample_sum(get(served.metrics).decode(), "skylb_requests_total") >= 2


@pytest.mark.parametrize("name", ANSWERED)
def test_a_documented_command_line_is_answered_with_the_line_to_use(name: str) -> None:
    line, instead = ANSWERED[name]
    ended = subprocess.run(
        [*SKYLB, *shlex.split(line)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert f"with SkyLB's own flags: {instead}\n" in ended.stderr
    assert re.search(r"^skylb: \d+ faults? in the configuration:$", ended.stderr, re.MULTILINE)


# ------------------------------------------------------------------------------------- probes


def listed(front: Balancer) -> dict[str, object]:
    found: dict[str, object] = json.loads(get(f"{front.url}/workers"))
    return found


def test_replicas_are_listed_in_the_shape_of_vllm_router_without_addresses_or_models(urls: list[str]) -> None:
    with balancer(*urls) as front:
        found = listed(front)
        assert found["total"] == 2
        assert found["stats"] == {"prefill_count": 0, "decode_count": 0, "regular_count": 2}
        text = json.dumps(found)
        assert "mock" not in text
        assert not any(url.partition("//")[2] in text for url in urls)
        rows = found["workers"]
        assert isinstance(rows, list)
        assert [row["is_healthy"] for row in rows] == [True, True]
        assert [row["load"] for row in rows] == [0, 0]
        assert len({row["id"] for row in rows}) == 2
        assert status_of(f"{front.url}/workers", method="POST") == 405


def test_without_a_replica_it_lives_and_is_not_ready() -> None:
    with balancer("http://127.0.0.1:9", wait_ready=False) as front:
        eventually(lambda: status_of(f"{front.url}/readiness") == 503, what="not ready")
        assert status_of(f"{front.url}/liveness") == 200
        assert listed(front)["total"] == 1


def test_while_it_is_being_stopped_it_lives_and_is_not_ready(urls: list[str]) -> None:
    with balancer(*urls, arguments=["--drain-delay-s", "600"]) as front:
        assert status_of(f"{front.url}/readiness") == 200
        front.child.send(signal.SIGTERM)
        eventually(lambda: status_of(f"{front.url}/readiness") == 503, what="not ready")
        assert status_of(f"{front.url}/liveness") == 200
        assert chat(front.port) == 200
