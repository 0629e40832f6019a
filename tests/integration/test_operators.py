"""What operators run and read: the commands that ask a running balancer, and its logs."""

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.processes import (
    SKYLB,
    Balancer,
    Child,
    balancer,
    eventually,
    free_port,
    get,
    mocks,
    start_mocks,
)
from tests.support.regions import regions
from tests.support.report import started

pytestmark = pytest.mark.any_clock

CHAT = {"model": "mock", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run([*SKYLB, *words], capture_output=True, text=True, timeout=120, check=False)


def ask(front: Balancer, *words: str) -> subprocess.CompletedProcess[str]:
    """A command that asks this balancer."""
    return run(*words, "--admin", f"127.0.0.1:{front.admin_port}")


def post(url: str, body: dict[str, object], *headers: tuple[str, str]) -> int:
    """The status of a POST of JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
    for name, value in (("Content-Type", "application/json"), *headers):
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def end(child: Child) -> None:
    """SIGTERM, and the process has ended; what it has said can be read."""
    child.send(signal.SIGTERM)
    eventually(lambda: not child.alive(), what="the end")


def test_a_replica_is_drained_looked_at_and_brought_back() -> None:
    with mocks(2, "--profile", "instant") as urls, balancer(*urls) as front:
        drained = ask(front, "drain", urls[0], "--wait")
        assert drained.stdout == (
            f"{urls[0]} drains: it gets no new requests from this balancer. "
            "Nothing is in flight there: it can be stopped.\n"
        )
        assert drained.returncode == 0
        shown = ask(front, "state")
        assert f"wrong     {urls[0]}: drains, 0 in flight" in shown.stdout
        assert all(len(line) <= 100 for line in shown.stdout.splitlines())
        assert json.loads(ask(front, "state", "--json").stdout)["engine"]["replicas"]
        back = json.loads(ask(front, "undrain", urls[0], "--json").stdout)
        assert back["draining"] is False
        assert "wrong     nothing" in ask(front, "state").stdout

        unknown = ask(front, "drain", "http://10.9.9.9:1")
        assert unknown.returncode == 1
        assert "no replica 'http://10.9.9.9:1'; there are: " in unknown.stderr
        assert urls[1] in unknown.stderr
        lonely = ask(front, "evacuate", "us")
        assert (lonely.returncode, lonely.stdout) == (1, "")
        assert "this balancer has no peers" in lonely.stderr


def test_a_region_is_evacuated_and_brought_back_by_whom_one_asks_anywhere_in_the_mesh() -> None:
    child, urls = start_mocks(2, "--profile", "instant")
    try:
        with regions("us", "eu", engines={"us": urls[:1], "eu": urls[1:]}) as found:
            us, eu = found["us"].front, found["eu"].front
            left = ask(us, "evacuate", "us")
            assert left.returncode == 0, left.stderr
            assert left.stdout.startswith("us is evacuated: its requests go to other regions (balancers: us")
            assert "skylb evacuate us --end lets it take requests again.\n" in left.stdout
            eventually(lambda: "alive, evacuated" in ask(eu, "peers").stdout, what="the peer knows")
            name = "while-it-is-evacuated"
            assert post(f"{us.url}/v1/chat/completions", CHAT, ("X-Request-Id", name)) == 200
            lines = eventually(lambda: [of for of in us.log() if of["request_id"] == name], what="its line")
            assert lines[0]["peer"] == "eu"
            back = ask(us, "evacuate", "us", "--end")
            assert (back.returncode, back.stdout.split(" (")[0]) == (0, "us takes requests again")
    finally:
        child.stop()


@pytest.mark.parametrize("words", [["state"], ["peers"], ["drain", "x"], ["undrain", "x"], ["evacuate", "x"]])
def test_where_nobody_listens_a_command_says_so_in_a_line(words: list[str]) -> None:
    ended = run(*words, "--admin", f"127.0.0.1:{free_port()}")
    assert ended.returncode == 1
    assert re.fullmatch(r"skylb: 127\.0\.0\.1:\d+: no answer: .*\n", ended.stderr)


def test_every_line_of_a_json_log_has_a_type_from_the_start_to_the_end() -> None:
    with mocks(1, "--profile", "instant") as urls, balancer(*urls) as front:
        assert post(f"{front.url}/v1/chat/completions", CHAT) == 200
        eventually(front.log, what="a line of the access log")
        assert {line["type"] for line in front.log()} == {"access"}
        end(front.child)
        lines = [json.loads(line) for line in front.child.text().splitlines()]
    assert all({"ts", "type", "level", "message"} <= line.keys() for line in lines)
    (start,) = [line for line in lines if line["type"] == "start"]
    assert start["replicas"] == {urls[0]: "up"}
    assert start["addresses"]["clients"] == [f"127.0.0.1:{front.port}"]
    assert lines[-1]["type"] == "stop"
    assert lines[-1]["requests"] == 1
    assert lines[-1]["errors"] == 0


def test_a_text_log_is_short_lines_and_says_its_end() -> None:
    with mocks(1, "--profile", "instant") as urls:
        front = started("--replica", urls[0])
        try:
            assert post(f"{front.clients[0]}/v1/chat/completions", CHAT) == 200
            pattern = rf"^\S+Z 200 POST /v1/chat/completions mock {urls[0][7:]} ttft=\d\.\d{{3}}s total=\S+$"
            eventually(lambda: re.search(pattern, front.child.text(), re.MULTILINE), what="its line")
        finally:
            end(front.child)
            said = front.child.text().splitlines()
            front.child.stop()
        assert re.search(r"stopped after \d+ s: 1 requests, 0 of them with status 5xx$", said[-1])


def test_a_request_without_its_key_has_its_route_in_the_log(tmp_path: object) -> None:
    file = f"{tmp_path}/keys.toml"
    assert run("keys", "new", "--file", file, "--tenant", "acme").returncode == 0
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=["--keys-file", file]) as front:
        assert post(f"{front.url}/v1/chat/completions", CHAT) == 401
        (line,) = eventually(front.log, what="a line of the access log")
        assert (line["route"], line["error_code"]) == ("/v1/chat/completions", "invalid_api_key")
        assert "path" not in line
        counted = [line for line in front.metrics().splitlines() if 'status="401"' in line]
        assert 'route="/v1/chat/completions"' in counted[0]


@pytest.mark.parametrize(
    "words",
    [["config", "show"], ["serve", "--help-all"], ["keys", "--help"], ["sim", "--example"], ["--help"]],
)
def test_a_reader_that_leaves_early_sees_no_traceback(words: list[str]) -> None:
    line = " ".join([*SKYLB, *words])
    for reader in ("head -1", "true"):
        ended = subprocess.run(
            ["bash", "-c", f"{line} | {reader}"], capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.stderr == "" or "no replicas" in ended.stderr


def shown(front: Balancer, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first frame of the live page that is as wanted."""
    with urllib.request.urlopen(f"{front.admin}/events", timeout=30) as stream:
        for line in stream:
            if line.startswith(b"data: {"):
                frame: dict[str, Any] = json.loads(line[6:])
                if wanted(frame):
                    return frame
    raise AssertionError("the page's stream has ended")


def test_on_the_page_probes_are_no_failed_requests_and_never_more_fail_than_there_were() -> None:
    with balancer(f"http://127.0.0.1:{free_port()}", wait_ready=False) as front:
        shown(front, lambda frame: frame["level"] == "bad")  # the replica is down, and nothing was asked yet
        for _ in range(3):
            with pytest.raises(urllib.error.HTTPError, match="503"):
                get(f"{front.url}/health")
        assert post(f"{front.url}/v1/chat/completions", CHAT, ("Content-Length", "x")) == 400
        assert [post(f"{front.url}/v1/chat/completions", CHAT) for _ in range(2)] == [503, 503]
        frame = shown(front, lambda frame: frame["vitals"]["failed"] >= 3)
        counts = {error["code"]: error["count"] for error in frame["errors"]}
        assert counts == {"no_replica_ready": 2, "bad_content_length": 1}
        said = [frame["headline"], *(trouble["text"] for trouble in frame["troubles"])]
        assert any(
            re.match(r"2 of 3 requests failed in the last .*: no_replica_ready", text) for text in said
        )
