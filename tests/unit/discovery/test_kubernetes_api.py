"""How often the API server of Kubernetes is asked, and how it is found."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from skylb.discovery.kubernetes.api import Api, check_config
from skylb.discovery.kubernetes.watch import BACK_OFF_S_MAX, Watcher
from skylb.errors import ConfigError
from tests.support.following import following, run
from tests.support.kubernetes import FakeApi, status
from tests.support.plane import until


def pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: web.Response, count: int) -> list[float]:
    """How long a watcher wants to wait between attempts that are answered so."""
    found: list[float] = []

    async def wait(_self: Watcher, pause_s: float) -> None:
        found.append(pause_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(Watcher, "_wait", wait)

    def prepare(api: FakeApi) -> None:
        async def handler(_request: web.Request) -> web.Response:
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

        api.handler = handler

    async def test() -> None:
        async with following(tmp_path, prepare=prepare):
            await until(lambda: len(found) >= count, "asked again")

    run(test)
    return found[:count]


def test_attempts_that_fail_come_ever_later_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pauses(tmp_path, monkeypatch, web.Response(status=500), 8)
    assert found == [0.25, 0.5, 1.0, 2.0, 4.0, BACK_OFF_S_MAX / 2, BACK_OFF_S_MAX / 2, BACK_OFF_S_MAX / 2]


@pytest.mark.parametrize(
    ("value", "pause_s"),
    [("7", 7.0), ("7200", 60.0), ("-1", 0.25), ("soon", 0.25), ("nan", 0.25), ("9" * 400, 60.0)],
)
def test_a_server_that_wants_to_be_left_alone_is_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, pause_s: float
) -> None:
    answer = web.Response(status=429, headers={"Retry-After": value})
    assert pauses(tmp_path, monkeypatch, answer, 1) == [pause_s]


def test_a_server_that_ends_every_watch_with_410_is_not_asked_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pauses(tmp_path, monkeypatch, web.json_response(status(410, "Expired"), status=410), 2)
    assert found == [0.5, 1.0]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "7", "{", "\t- a: b: c", "kind: Config", "current-context: c\ncontexts: 7", "a: &a [*a"],
)
def test_a_file_that_is_no_kubeconfig_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        check_config(path)
    assert caught.value.faults[0].startswith(f"kubernetes.config: {path}: expected a kubeconfig: ")
    assert len(caught.value.faults) == 1


def test_certificates_that_are_none_are_an_error(tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text("no certificate")
    path = FakeApi().config(tmp_path / "config")
    found = json.loads(path.read_text())
    found["clusters"][0]["cluster"] = {
        "server": "https://127.0.0.1:1",
        "certificate-authority": str(authority),
    }
    path.write_text(json.dumps(found))
    with pytest.raises(ConfigError, match=r"the certificates for https://127\.0\.0\.1:1 are no good"):
        asyncio.run(Api(path).open())


def test_outside_of_a_cluster_a_kubeconfig_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        asyncio.run(Api(None, tmp_path).open())
    assert caught.value.faults[0].startswith("kubernetes: there is no service account (")
    assert caught.value.faults[0].endswith("): expected a pod that has one, or kubernetes.config")
