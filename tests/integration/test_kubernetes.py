"""Replicas that Kubernetes lists, through the whole control plane: what operators and metrics see."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from skylb.config import Settings
from skylb.settings.kubernetes import KubernetesSettings
from tests.support import plane
from tests.support.kubernetes import NAMESPACE, FakeApi, endpoint, endpoint_slice, fake_api, status
from tests.support.plane import FakeReplica, Plane, running, until
from tests.support.processes import balancer, free_port, get
from tests.support.regions import key_line

SOURCE = f"kubernetes {NAMESPACE}"


def given(api: FakeApi, replica: FakeReplica, **conditions: bool) -> None:
    """The replica is an endpoint in this state."""
    host, _, port = replica.url.removeprefix("http://").partition(":")
    ports = ({"name": "http", "port": int(port), "protocol": "TCP"},)
    api.put(endpoint_slice("a", endpoint(host, name="vllm-0", uid="u", zone="z1", **conditions), ports=ports))


def settings(api: FakeApi, directory: Path) -> Settings:
    config = api.config(directory / "config")
    return plane.settings(kubernetes=KubernetesSettings(selector="app=vllm", config=config))


def samples(world: Plane, name: str) -> dict[str, float]:
    """The samples of a family, by source."""
    return {
        sample.labels["source"]: sample.value
        for family in world.control.families()
        if family.name == name
        for sample in family.samples
    }


def test_a_replica_that_ends_drains_and_the_state_says_where_it_is(tmp_path: Path) -> None:
    async def test(replica: FakeReplica) -> None:
        async with fake_api() as api:
            given(api, replica)
            async with running(settings(api, tmp_path)) as world:
                await until(lambda: world.state(replica.url) == "up", "up")
                assert world.control.discovery()["replicas"][replica.url] == {
                    "instance": f"{NAMESPACE}/vllm-0",
                    "node": "",
                    "zone": "z1",
                    "role": "",
                    "weight": None,
                    "region": None,
                    "draining": False,
                }
                assert world.control.discovery()["sources"][SOURCE]["replicas"] == 1
                given(api, replica, ready=False, serving=True, terminating=True)
                await until(lambda: world.gauge(replica.url).draining, "it drains")
                assert world.control.drains(replica.url)
                api.delete("a")
                await until(lambda: world.state(replica.url) == "absent", "it left")
                assert world.control.discovery()["sources"][SOURCE]["replicas"] == 0

    plane.run(test)


def test_the_age_of_the_list_grows_while_the_api_server_is_away(tmp_path: Path) -> None:
    async def test(replica: FakeReplica) -> None:
        async with fake_api() as api:
            given(api, replica)
            async with running(settings(api, tmp_path)) as world:
                await until(lambda: world.state(replica.url) == "up", "up")
                assert samples(world, "skylb_discovery_replicas") == {SOURCE: 1}
                await api.stop()
                await until(lambda: SOURCE in world.control.states(), "told")
                assert "is not reached" in world.control.states()[SOURCE]
                before = samples(world, "skylb_discovery_age_seconds")[SOURCE]
                await asyncio.sleep(0.01)
                assert samples(world, "skylb_discovery_age_seconds")[SOURCE] > before
                assert world.state(replica.url) == "up"

    plane.run(test)


@pytest.mark.parametrize("kind", ["file", "dns", "flag"])
def test_other_sources_have_an_age_where_they_can_age(tmp_path: Path, kind: str) -> None:
    async def test(replica: FakeReplica) -> None:
        (tmp_path / "fleet").write_text(f"{replica.url}\n")
        options = {
            "file": plane.settings(replicas_file=tmp_path / "fleet"),
            "dns": plane.settings(replicas_dns=(plane.settings(replica.url).replica)),
            "flag": plane.settings(replica.url),
        }
        async with running(options[kind]) as world:
            await until(lambda: world.state(replica.url) == "up", "up")
            ages = samples(world, "skylb_discovery_age_seconds")
            assert len(ages) == (0 if kind == "flag" else 1)
            assert all(0 <= age_s < 60 for age_s in ages.values())
            assert list(samples(world, "skylb_discovery_replicas").values()) == [1]

    plane.run(test)


def test_why_peers_are_not_listed_is_in_the_report_and_their_lists_age_is_a_metric(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(key_line("k1"))
    keys.chmod(0o600)
    why = "the account may not list endpointslices"

    async def forbid(_: web.Request) -> web.Response:
        return web.json_response(status(403, "Forbidden"), status=403)

    def serve(config: Path) -> None:
        given = ["--name", "us-1", "--peer-kubernetes-service", "skylb", "--kubernetes-config", str(config)]
        addresses = [f"--{name}-listen=127.0.0.1:{free_port()}" for name in ("peer", "sync")]
        arguments = [*given, *addresses, "--peer-key-file", str(keys)]
        with balancer("http://127.0.0.1:9", arguments=arguments, wait_ready=False) as front:
            front.child.require(lambda: "ready: " in front.child.text(), what="it has started")
            assert f"peers    kubernetes skylb  {why}" in front.child.text()
            [(name, listed)] = json.loads(get(f"{front.admin}/peers"))["lists"].items()
            assert name == "kubernetes skylb"
            assert listed["fault"].startswith(why)
            assert 'skylb_peer_list_age_seconds{source="kubernetes skylb"}' in front.metrics()

    async def test() -> None:
        async with fake_api() as api:
            api.handler = forbid
            await asyncio.to_thread(serve, api.config(tmp_path / "config"))

    asyncio.run(test())
