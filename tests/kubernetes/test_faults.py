"""The API server away, restarted, forbidding, and without etcd; tokens that end. Every part is real."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from skylb.discovery.kubernetes.api import Api, RefusedError
from skylb.discovery.kubernetes.slices import Slice
from skylb.discovery.kubernetes.watch import Place, Watcher
from tests.kubernetes.cluster import RIGHTS, ApiError, Cluster
from tests.kubernetes.front import SELECTOR, age_s, drains, sees, serving, told
from tests.kubernetes.test_rolling import PROFILE, Load
from tests.support.plane import until
from tests.support.processes import balancer, eventually, start_mocks

AWAY_S = 60.0
"""How long the API server is away (issue: "the API away for 60 s changes nothing")."""

LIST_ONLY = ({**RIGHTS[0], "verbs": ["list"]},)
NOTHING = ({**RIGHTS[0], "verbs": ["get"]},)


def test_the_api_server_away_for_a_minute_changes_nothing(cluster: Cluster) -> None:
    cluster.service("vllm")
    children = [start_mocks(1, *PROFILE, listen=f"10.88.0.{number}:8000")[0] for number in (2, 3)]
    for number in (2, 3):
        cluster.run(f"vllm-{number}", f"10.88.0.{number}", ready=True)
    try:
        with serving(cluster, wait_ready=True) as front:
            sees(front, n2=False, n3=False)
            load = Load(front)
            load.start()
            try:
                load.more()
                cluster.server.kill_api()
                away = time.monotonic()
                while time.monotonic() - away < AWAY_S:
                    load.more()
                    assert drains(front) == {"10.88.0.2": False, "10.88.0.3": False}
                assert age_s(front) > AWAY_S - 5
                assert load.failures == []
                cluster.server.start_api()
                eventually(lambda: age_s(front) < AWAY_S / 2, timeout_s=120, what="heard again")
                cluster.delete("vllm-2")
                cluster.until("10.88.0.2", False, True, True)
                sees(front, n2=True, n3=False)
                load.more()
            finally:
                load.stop()
            assert load.failures == []
            assert told(front, "is not reached") == 1
            assert told(front, "followed again") == 1
    finally:
        for child in children:
            child.stop()


def test_without_an_api_server_it_starts_and_replicas_come_with_the_server(cluster: Cluster) -> None:
    cluster.service("vllm")
    cluster.run("a", "10.88.0.2", ready=True)
    cluster.until("10.88.0.2", True, True, False)
    cluster.server.kill_api()
    try:
        with serving(cluster) as front:
            sees(front)
            eventually(lambda: told(front, "is not reached"), what="told")
            assert "is not reached" in front.state()["replicas"][f"kubernetes {cluster.namespace}"]
            cluster.server.start_api()
            sees(front, n2=False)
    finally:
        if not cluster.server.ready():
            cluster.server.start_api()


def test_without_etcd_the_last_list_stays(cluster: Cluster) -> None:
    """The server that has lost etcd answers with an error, not with an empty list."""
    cluster.service("vllm")
    cluster.run("a", "10.88.0.2", ready=True)
    with serving(cluster) as front:
        sees(front, n2=False)
        cluster.server.kill_etcd()
        try:
            with pytest.raises((ApiError, OSError)):
                cluster.slices()
            cluster.server.kill_api()
            eventually(lambda: told(front, "is not reached"), what="told")
            assert drains(front) == {"10.88.0.2": False}
        finally:
            cluster.server.start_etcd()
            cluster.server.start_api()
        cluster.delete("a")
        cluster.until("10.88.0.2", False, True, True)
        sees(front, n2=True)


def test_a_version_from_before_a_restart_is_410_and_ends_in_a_new_list(cluster: Cluster) -> None:
    cluster.service("vllm")
    cluster.run("a", "10.88.0.2", ready=True)
    cluster.until("10.88.0.2", True, True, False)
    old = cluster.slices()[0]["metadata"]["resourceVersion"]
    cluster.run("b", "10.88.0.3", ready=True)
    cluster.until("10.88.0.3", True, True, False)
    cluster.server.kill_api()
    cluster.server.start_api()

    async def test() -> None:
        taken: list[list[str]] = []

        def take(slices: Sequence[Slice]) -> None:
            taken.append(
                sorted(end.addresses[0] for one in slices for end in one.endpoints or () if end.addresses)
            )

        api = Api(cluster.kubeconfig)
        await api.open()
        refused: list[int] = []
        ask = api.watch

        def spy(*arguments: str, **more: float) -> object:
            refused.append(int(arguments[2]))
            return ask(*arguments, **more)  # type: ignore[arg-type]  # as it came

        api.watch = spy  # type: ignore[assignment,method-assign]  # to see what is asked
        watcher = Watcher(api, Place("replicas", cluster.namespace, SELECTOR[1]), take, asyncio.Event())
        watcher._version = old
        task = asyncio.create_task(watcher.run())
        await until(lambda: bool(taken), "listed anew")
        await until(lambda: len(refused) == 2, "watched again")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await api.close()
        assert taken[0] == ["10.88.0.2", "10.88.0.3"]
        assert refused[0] == int(old) < refused[1]
        assert watcher.failure is None

    asyncio.run(test())


@pytest.mark.parametrize(
    ("rules", "verb"), [(NOTHING, "list"), (LIST_ONLY, "watch")], ids=["nothing", "no watch"]
)
def test_a_missing_right_is_named_until_it_is_granted(
    cluster: Cluster, tmp_path: Path, rules: object, verb: str
) -> None:
    cluster.service("vllm")
    cluster.run("a", "10.88.0.2", ready=True)
    token = cluster.account("skylb", rules)
    config = cluster.server.write_config(tmp_path / "config", token, cluster.namespace)
    with balancer(arguments=[*SELECTOR, "--kubernetes-config", str(config)], wait_ready=False) as front:
        text = (
            f"system:serviceaccount:{cluster.namespace}:skylb may not {verb} endpointslices (API group "
            f"discovery.k8s.io) in namespace {cluster.namespace}: grant it the verbs list and watch there"
        )
        eventually(lambda: told(front, text), what="told")
        cluster.set_rules("skylb", RIGHTS)
        eventually(lambda: told(front, "followed again"), what="followed")
        sees(front, n2=False)
        cluster.delete("a")
        sees(front, n2=True)
        assert told(front, text) == 1


def test_a_token_that_ended_is_read_again_from_its_file(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.service("vllm")
    cluster.run("a", "10.88.0.2", ready=True)
    with cluster.inside(cluster.account("skylb"), monkeypatch) as files:

        async def test() -> None:
            api = Api()
            await api.open()
            assert api.namespace == cluster.namespace
            assert await api.page(cluster.namespace, SELECTOR[1], None)
            # A token of an account that is no more ends at once; the next one has its name and rights.
            cluster.ask("DELETE", cluster.path("serviceaccounts", "skylb"))
            cluster.ask("POST", cluster.path("serviceaccounts"), {"metadata": {"name": "skylb"}})
            assert await _refuses(api, cluster) == 401
            (files / "token").write_text(cluster.token("skylb"))
            found = asyncio.Event()
            place = Place("replicas", cluster.namespace, SELECTOR[1])
            watcher = Watcher(api, place, lambda _: found.set(), asyncio.Event())
            task = asyncio.create_task(watcher.run())
            async with asyncio.timeout(60):
                await found.wait()
            assert watcher.failure is None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await api.close()

        asyncio.run(test())


async def _refuses(api: Api, cluster: Cluster) -> int:
    """Waits until the server does not accept the token; its status. It remembers those that it accepted."""
    async with asyncio.timeout(60):
        while True:
            try:
                await api.page(cluster.namespace, SELECTOR[1], None)
            except RefusedError as error:
                return error.status
            await asyncio.sleep(0.2)
