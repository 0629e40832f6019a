"""Which key goes where: replicas that check keys on requests, on lists of models, on metrics."""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skylb.keys.edit import add_key
from tests.support.processes import Balancer, balancer, eventually, mocks
from tests.support.raw import Answer, ask, chat, request

KEY = "the-key-of-the-replicas"
ENGINES_401 = b'{"error":"Unauthorized"}'
"""What vLLM answers where a key is missing or wrong."""

REQUESTS, LISTS, METRICS = "/v1/chat", "/v1/models", "/metrics"


@contextmanager
def fleet(
    directory: Path,
    *keys: str,
    guards: tuple[str, ...] = (),
    probe: str | None = None,
    replica: str | None = None,
    count: int = 1,
) -> Iterator[Balancer]:
    """A balancer with these key files before replicas with these keys; ``guards``: else as vLLM does."""
    guarded = [argument for guard in guards for argument in ("--api-key-guards", guard)]
    asked = [argument for key in keys for argument in ("--api-key", key)]
    command: list[str] = []
    for option, key in (("probe", probe), ("replica", replica)):
        if key is not None:
            (directory / option).write_text(key)
            command += [f"--{option}-key-file", str(directory / option)]
    with (
        mocks(count, "--profile", "instant", *asked, *guarded) as urls,
        balancer(*urls, arguments=command) as found,
    ):
        eventually(lambda: "clients" in found.child.text(), of=[found.child])
        yield found


def send(found: Balancer, key: str | None = None, **fields: Any) -> Answer:
    lines = [] if key is None else [f"Authorization: Bearer {key}"]
    return asyncio.run(ask(found.port, request({**chat("x"), **fields}, headers=lines)))


def listed(found: Balancer) -> list[str]:
    head = b"GET /v1/models HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    answer = asyncio.run(ask(found.port, head))
    return [model["id"] for model in json.loads(answer.body)["data"]]


def replicas(found: Balancer) -> str:
    """What SkyLB says of its replicas."""
    return " ".join(found.state()["replicas"].values())


def refusals(found: Balancer) -> float:
    """Attempts at which a replica has refused the balancer's key."""
    return float(found.metrics().partition('skylb_attempts_total{outcome="unauthorized"} ')[2].split()[0])


# ------------------------------------------------------------------ keys of clients pass through


@pytest.mark.parametrize(
    ("guards", "probe", "said"),
    [
        ((), None, "/v1/models answers 401 without a key: probe_key_file gives one"),
        ((), "wrong", "/v1/models answers 401 to the key of probe_key_file"),
        ((), KEY, None),
        ((REQUESTS,), None, None),
        ((REQUESTS, METRICS), None, "/metrics answers 401 without a key: probe_key_file gives one"),
        ((REQUESTS, METRICS), "wrong", "/metrics answers 401 to the key of probe_key_file"),
        ((REQUESTS, METRICS), KEY, None),
        ((REQUESTS, LISTS, METRICS), None, "without a key"),
        ((REQUESTS, LISTS, METRICS), KEY, None),
    ],
)
def test_where_replicas_check_clients_keys_they_do_whatever_can_be_probed(
    tmp_path: Path, guards: tuple[str, ...], probe: str | None, said: str | None
) -> None:
    with fleet(tmp_path, KEY, guards=guards, probe=probe) as found:
        assert send(found, KEY).status == 200
        for key in ("wrong", None):
            refused = send(found, key)
            assert (refused.status, refused.body) == (401, ENGINES_401)
        reads_list = probe == KEY or (guards and LISTS not in guards)
        assert listed(found) == (["mock"] if reads_list else [])
        log = found.child.text()
        if said is None:
            assert "answers 401" not in log + replicas(found)
        else:
            assert said in replicas(found)
            assert said in log
        assert refusals(found) == 0, "what replicas think of clients' keys is no mark against them"


def test_a_missing_key_is_said_once_and_not_with_every_probe(tmp_path: Path) -> None:
    with fleet(tmp_path, KEY) as found:
        before = found.metric("skylb_probe_seconds_count")
        eventually(lambda: found.metric("skylb_probe_seconds_count") > before + 20, of=[found.child])
        warnings = [line for line in found.child.text().splitlines() if "skylb.control.models" in line]
        assert len([line for line in warnings if "/v1/models answers 401" in line]) == 1


def test_a_list_behind_a_key_keeps_nobody_from_requests_that_need_none(tmp_path: Path) -> None:
    with fleet(tmp_path, KEY, guards=(LISTS, METRICS)) as found:
        assert send(found).status == 200
        assert listed(found) == []
        assert "it gets requests for any model" in replicas(found)


# ---------------------------------------------------------------------- the key of this balancer


@pytest.mark.parametrize("probe", [None, KEY, "wrong"])
@pytest.mark.parametrize("key", [None, "of-the-client"])
def test_with_a_key_of_its_own_the_balancer_sends_no_clients(
    tmp_path: Path, probe: str | None, key: str | None
) -> None:
    with fleet(tmp_path, KEY, probe=probe, replica=KEY) as found:
        assert send(found, key).status == 200
        assert listed(found) == ([] if probe == "wrong" else ["mock"])


@pytest.mark.parametrize("probe", [None, KEY])
@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"store": True}])
def test_a_wrong_key_of_the_balancer_is_no_fault_of_the_client(
    tmp_path: Path, probe: str | None, fields: dict[str, Any]
) -> None:
    with fleet(tmp_path, KEY, probe=probe, replica="wrong", count=2) as found:
        answer = send(found, KEY, **fields)
        error = json.loads(answer.body)["error"]
        assert (answer.status, error["code"]) == (502, "upstream_unauthorized")
        assert "wrong" not in error["message"]
        assert KEY not in error["message"]
        assert refusals(found) == 2, "each replica was asked once"
        said = "answers 401 to the key of replica_key_file (refused so far: 1)"
        eventually(lambda: said in found.child.text(), what="a line in the log", of=[found.child])
        if probe is None:
            assert "/v1/models answers 401 to the key of replica_key_file" in found.child.text()


def test_where_clients_keys_stay_here_a_replica_that_asks_for_one_is_no_fault_of_the_client(
    tmp_path: Path,
) -> None:
    ours, _ = add_key(tmp_path / "keys.toml", "acme", {}, {})
    (tmp_path / "probe").write_text(KEY)
    command = ["--keys-file", str(tmp_path / "keys.toml"), "--probe-key-file", str(tmp_path / "probe")]
    with (
        mocks(1, "--profile", "instant", "--api-key", KEY) as urls,
        balancer(*urls, arguments=command) as found,
    ):
        answer = send(found, ours)
        code = json.loads(answer.body)["error"]["code"]
        assert (answer.status, code) == (502, "upstream_unauthorized")
        said = "answers 401 without a key: replica_key_file gives one"
        eventually(lambda: said in found.child.text(), what="a line in the log", of=[found.child])


def test_a_replica_that_refuses_the_key_is_left_alone_for_those_that_take_it(tmp_path: Path) -> None:
    (tmp_path / "replica").write_text(KEY)
    command = ["--replica-key-file", str(tmp_path / "replica"), "--policy", "round_robin"]
    with (
        mocks(1, "--profile", "instant", "--api-key", "another") as other,
        mocks(1, "--profile", "instant", "--api-key", KEY) as right,
        balancer(*other, *right, arguments=command) as found,
    ):
        assert [send(found).status for _ in range(40)] == [200] * 40
        assert 1 <= refusals(found) <= 5, "it is ejected after a run of them"


def test_keys_are_read_again_on_sighup_and_replicas_may_take_two_meanwhile(tmp_path: Path) -> None:
    with fleet(tmp_path, "new", replica="old", probe="old") as found:
        assert send(found).status == 502
        assert listed(found) == []
        (tmp_path / "replica").write_text("new")
        (tmp_path / "probe").write_text("new")
        found.child.send(signal.SIGHUP)
        eventually(lambda: send(found).status == 200, of=[found.child])
        eventually(lambda: listed(found) == ["mock"], of=[found.child])
    with fleet(tmp_path, "old", "new", replica="old") as found:
        assert send(found).status == 200
        (tmp_path / "replica").write_text("new")
        found.child.send(signal.SIGHUP)
        assert [send(found).status for _ in range(20)] == [200] * 20, "no request fails in a rotation"
