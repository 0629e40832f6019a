"""Credential helpers of a kubeconfig: what they answer, and that none of them holds SkyLB up."""

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from skylb.discovery.kubernetes import helper as helper_module
from skylb.discovery.kubernetes.api import Api, AwayError, _loader
from skylb.errors import ConfigError
from tests.support.following import SELECTOR, World, three
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


async def lack(path: Path) -> str:
    """What is said of a helper that gives no credentials: the start goes on, and the first request fails."""
    client = Api(path)
    await client.open()
    with pytest.raises(AwayError) as caught:
        await client.page(NAMESPACE, SELECTOR, None)
    await client.close()
    return str(caught.value).removeprefix(f"kubernetes.config: {path}: ")


def fault(directory: Path, code: str) -> str:
    return asyncio.run(lack(config(directory, FakeApi(), code)))


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


NOTHING = f"the credential helper {sys.executable} answers no credentials: "
LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])


@LOOPS
def test_one_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    monkeypatch.setattr(helper_module, "HELPER_S", 0.5)
    hang(tmp_path, factory, "sleep 1000 & sleep 1000")


def hang(
    tmp_path: Path,
    factory: Callable[[], asyncio.AbstractEventLoop],
    script: str,
    given_up: Callable[[], object] = lambda: None,
) -> None:
    """Asks a helper that never ends; in time nothing of it has the pipe any more that it held.

    Calls ``given_up`` as soon as it was given up.
    """
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = config(tmp_path, FakeApi(), f"exec 3>{pipe}; {script}", command="/bin/sh")

    async def test() -> None:
        assert await lack(path) == "the credential helper /bin/sh does not end in 0.5 s"
        given_up()
        await until(lambda: has_no_writer(held), "nobody has the pipe")

    held = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(test())
    finally:
        os.close(held)


def has_no_writer(pipe: int) -> bool:
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


@LOOPS
def test_one_that_may_not_be_killed_is_left_alone_and_what_is_told_is_its_own_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A helper that runs as another user; the planted refusal is for the group alone."""

    def refuse(_group: int, _signal: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    started: list[asyncio.subprocess.Process] = []
    begin = asyncio.create_subprocess_exec

    async def noted(*arguments: Any, **how: Any) -> asyncio.subprocess.Process:
        started.append(await begin(*arguments, **how))
        return started[-1]

    monkeypatch.setattr(helper_module, "HELPER_S", 0.5)
    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    statuses: list[int | None] = []
    hang(tmp_path, factory, "exec sleep 1000", lambda: statuses.append(started[0].returncode))
    assert statuses == [-signal.SIGKILL], "its end was waited for"
    started.clear()
    gc.collect()  # an unclosed transport warns here, and warnings are errors


@LOOPS
@pytest.mark.parametrize("code", ["sleep 2 &", "setsid sleep 2 &"])
def test_one_that_leaves_its_output_to_a_child_is_given_up_and_no_group_of_its_old_number_is_killed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    factory: Callable[[], asyncio.AbstractEventLoop],
    code: str,
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(helper_module, "HELPER_S", 0.5)
    monkeypatch.setattr(os, "killpg", lambda group, _signal: killed.append(group))
    path = config(tmp_path, FakeApi(), code, command="/bin/sh")
    with asyncio.Runner(loop_factory=factory) as runner:
        assert "does not end in" in runner.run(lack(path))
    assert killed == []
    gc.collect()  # an unclosed transport warns here, and warnings are errors


def test_one_that_fails_at_the_start_is_asked_again_until_it_gives_credentials(tmp_path: Path) -> None:
    async def test() -> None:
        async with fake_api() as api:
            three(api)
            path = config(tmp_path, api, "import sys; sys.exit('log in first')")
            client = Api(path)
            await client.open()
            assert (client.host, client.namespace) == (api.url, NAMESPACE)
            world = World(api, client, path)
            following = asyncio.create_task(world.watcher.run())
            await world.passed.wait()
            assert "log in first" in str(world.watcher.trouble())
            path.write_text("7")
            await until(lambda: "expected a kubeconfig" in str(world.watcher.trouble()), "asked again")
            config(tmp_path, api, says({"token": "later"}))
            await world.sees("a", "b", "c")
            assert api.asked[0]["authorization"] == "Bearer later"
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await client.close()

    asyncio.run(test())


def test_one_that_is_asked_again_after_401_and_hangs_leaves_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with fake_api() as api:
            client = Api(config(tmp_path, api, says({"token": "first"})))
            await client.open()
            monkeypatch.setattr(helper_module, "HELPER_S", 0.05)
            config(tmp_path, api, "import time; time.sleep(1000)")
            with pytest.raises(AwayError, match="does not end in"):
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
        ("print('x')", f"{NOTHING}Expecting value"),
        ("print('{}')", f"{NOTHING}'apiVersion'"),
        (says({}), f"{NOTHING}expected a token, or a certificate with its key"),
        (says({}, "v1beta1"), f"{NOTHING}its apiVersion is v1beta1: expected {VERSION}"),
        (says({"clientCertificateData": "c"}), f"{NOTHING}expected a token"),
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
    path = config(tmp_path, FakeApi(), "", command="/nowhere/helper")
    with pytest.raises(ConfigError) as caught:
        asyncio.run(Api(path).open())
    why = "the credential helper /nowhere/helper cannot be started: No such file or directory"
    assert caught.value.faults == [f"kubernetes.config: {path}: {why}"]


def test_a_certificate_and_its_key_become_files(tmp_path: Path) -> None:
    loader = _loader(
        config(tmp_path, FakeApi(), says({"clientCertificateData": "its", "clientKeyData": "key"}))
    )
    asyncio.run(loader._load_authentication())
    assert Path(loader.cert_file).read_text() == "its"
    assert Path(loader.key_file).read_text() == "key"
