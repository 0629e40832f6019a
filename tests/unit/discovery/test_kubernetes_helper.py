"""Credential helpers of a kubeconfig: what they answer, and that none of them holds SkyLB up."""

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from skylb.discovery.kubernetes import helper as helper_module
from skylb.discovery.kubernetes.api import Api, _loader
from skylb.errors import ConfigError
from tests.support.following import SELECTOR
from tests.support.kubernetes import NAMESPACE, FakeApi, fake_api
from tests.support.plane import until

VERSION = "client.authentication.k8s.io/v1"


def config(directory: Path, api: FakeApi, code: str, *, command: str = sys.executable) -> Path:
    """A kubeconfig whose helper is a Python with this code."""
    path = api.config(directory / "config")
    found = json.loads(path.read_text())
    run: dict[str, Any] = {"apiVersion": VERSION, "command": command, "args": ["-c", code]}
    found["users"][0]["user"] = {"exec": run}
    path.write_text(json.dumps(found))
    return path


def says(status: dict[str, str], version: str = VERSION) -> str:
    answer = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})
    return f"print({answer!r})"


def fault(directory: Path, code: str, **named: str) -> str:
    """What is said of a helper that is no good."""
    path = config(directory, FakeApi(), code, **named)
    with pytest.raises(ConfigError) as caught:
        asyncio.run(Api(path).open())
    [text] = caught.value.faults
    return text.removeprefix(f"kubernetes.config: {path}: ")


def test_its_token_is_sent_and_it_is_asked_as_kubectl_asks(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    said = "os.environ['KUBERNETES_EXEC_INFO'] + sys.stdin.read()"
    note = f"import os, sys; open({str(asked)!r}, 'w').write({said});"

    async def test() -> None:
        async with fake_api() as api:
            client = Api(config(tmp_path, api, f"{note}{says({'token': 'from-a-helper'})}"))
            await client.open()
            await client.page(NAMESPACE, SELECTOR, None)
            await client.close()
            assert api.asked[0]["authorization"] == "Bearer from-a-helper"

    asyncio.run(test())
    spec = json.loads(asked.read_text())
    assert spec == {"apiVersion": VERSION, "kind": "ExecCredential", "spec": {"interactive": False}}


LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])


@LOOPS
def test_one_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    monkeypatch.setattr(helper_module, "HELPER_S", 0.5)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = config(tmp_path, FakeApi(), f"exec 3>{pipe}; sleep 1000 & sleep 1000", command="/bin/sh")

    def all_ended() -> bool:
        try:
            return os.read(held, 1) == b""
        except BlockingIOError:  # somebody has its other end
            return False

    async def test() -> None:
        with pytest.raises(ConfigError) as caught:
            await Api(path).open()
        text = f"kubernetes.config: {path}: the credential helper /bin/sh does not end in 0.5 s"
        assert caught.value.faults == [text]
        await until(all_ended, "nobody has the pipe")

    held = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(test())
    finally:
        os.close(held)


@LOOPS
@pytest.mark.parametrize("code", ["sleep 1000 &", "setsid sleep 2 &"])
def test_one_that_leaves_its_output_to_a_child_is_given_up(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    factory: Callable[[], asyncio.AbstractEventLoop],
    code: str,
) -> None:
    monkeypatch.setattr(helper_module, "HELPER_S", 0.5)
    path = config(tmp_path, FakeApi(), code, command="/bin/sh")
    with asyncio.Runner(loop_factory=factory) as runner, pytest.raises(ConfigError, match="does not end in"):
        runner.run(Api(path).open())
    gc.collect()  # an unclosed transport warns here, and warnings are errors


def test_one_that_is_asked_again_after_401_and_hangs_leaves_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with fake_api() as api:
            client = Api(config(tmp_path, api, says({"token": "first"})))
            await client.open()
            monkeypatch.setattr(helper_module, "HELPER_S", 0.05)
            config(tmp_path, api, "import time; time.sleep(1000)")
            with pytest.raises(ConfigError, match="does not end in"):
                await client.renew()
            await client.page(NAMESPACE, SELECTOR, None)
            await client.close()
            assert api.asked[0]["authorization"] == "Bearer first"

    asyncio.run(test())


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "import sys; sys.exit('log in first')",
            f"the credential helper {sys.executable} ends with status 1: ",
        ),
        ("print('x' * 3_000_000)", f"the credential helper {sys.executable} answers more than 1048576 bytes"),
        ("print('x')", "expected a kubeconfig: Expecting value"),
        ("print('{}')", "expected a kubeconfig: 'apiVersion'"),
        (says({}), "expected a kubeconfig: the credential helper answers neither a token nor a certificate"),
        (
            says({}, "v1beta1"),
            f"expected a kubeconfig: the credential helper answers v1beta1: expected {VERSION}",
        ),
        (
            says({"clientCertificateData": "c"}),
            "expected a kubeconfig: the credential helper answers neither",
        ),
    ],
)
def test_one_that_answers_something_else_is_a_fault_that_says_what(
    tmp_path: Path, code: str, why: str
) -> None:
    assert fault(tmp_path, code).startswith(why)


def test_what_it_says_when_it_fails_is_told(tmp_path: Path) -> None:
    assert fault(tmp_path, "import sys; sys.exit('log in first')").endswith(
        "ends with status 1: log in first"
    )


def test_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    text = fault(tmp_path, "", command="/nowhere/helper")
    assert text == "the credential helper /nowhere/helper cannot be started: No such file or directory"


def test_a_certificate_and_its_key_become_files(tmp_path: Path) -> None:
    loader = _loader(
        config(tmp_path, FakeApi(), says({"clientCertificateData": "its", "clientKeyData": "key"}))
    )
    asyncio.run(loader._load_authentication())
    assert Path(loader.cert_file).read_text() == "its"
    assert Path(loader.key_file).read_text() == "key"
