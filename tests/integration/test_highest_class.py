"""The highest class of a tenant holds at the engine too, seen by a replica that keeps all it gets."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from skylb.keys.edit import add_key
from tests.support.processes import balancer, free_port
from tests.support.raw import ask, request
from tests.support.recorder import Recorder, recording
from tests.support.regions import regions

TRUSTED = ["--trusted-proxies", "127.0.0.0/8", "--tenant-header", "X-Tenant", "--engine-class-from-body"]
SMALL: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
LARGE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x" * 400_000}]}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """Tenants with and without a highest class."""
    path = tmp_path / "keys.toml"
    for tenant, terms in (("free", {}), ("normal", {"class": "normal"}), ("low", {"class": "low"})):
        add_key(path, tenant, terms, {})
    return path


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with recording() as found:
        yield found


def seen_by(recorder: Recorder, port: int, tenant: str, priority: int, body: dict[str, Any]) -> object:
    """The priorities in the body and in the header that the replica gets of a request that has both."""
    recorder.seen.clear()
    lines = [f"X-Tenant: {tenant}", f"X_VLLM_Priority: {priority}"]
    sent = request({**body, "priority": priority}, path="/v1/chat/completions", headers=lines)
    answer = asyncio.run(ask(port, sent))
    assert answer.status == 200, answer.body
    (seen,) = recorder.seen
    named = [int(value) for name, value in seen.lines if name.lower() == "x_vllm_priority"]
    return orjson.loads(seen.body)["priority"], named


# vLLM serves the lower number first, SGLang the higher.
CASES = [
    ("free", -9, (-9, [-9])),
    ("free", 9, (9, [9])),
    ("normal", -9, (0, [])),
    ("normal", 9, (0, [])),
    ("low", -9, (0, [])),
    ("low", 9, (0, [])),
]


def test_an_engine_gets_no_priority_of_a_tenant_with_a_highest_class(
    keys_file: Path, recorder: Recorder
) -> None:
    with balancer(recorder.url, arguments=["--keys-file", str(keys_file), *TRUSTED]) as front:
        for body in (SMALL, LARGE):
            for tenant, priority, passed in CASES:
                assert seen_by(recorder, front.port, tenant, priority, body) == passed


def test_an_engine_of_another_region_gets_none_either(keys_file: Path, recorder: Recorder) -> None:
    own = {"eu": ["--keys-file", str(keys_file), *TRUSTED], "us": ["--engine-class-from-body"]}
    nobody = f"http://127.0.0.1:{free_port()}"
    with regions("eu", "us", engines={"eu": [nobody], "us": [recorder.url]}, own=own) as found:
        found.settled()
        for body in (SMALL, LARGE):
            for tenant, priority, passed in CASES:
                assert seen_by(recorder, found["eu"].front.port, tenant, priority, body) == passed
        assert found["eu"].peers()["us"]["forwards_out"] == 2 * len(CASES)
