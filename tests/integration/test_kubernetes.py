"""Replicas that Kubernetes lists, through the whole control plane: what operators and metrics see."""

import asyncio
from pathlib import Path

import pytest

from skylb.settings.kubernetes import KubernetesSettings
from tests.support import plane
from tests.support.kubernetes import NAMESPACE, FakeApi, endpoint, endpoint_slice, fake_api
from tests.support.plane import FakeReplica, Plane, running, until

SOURCE = f"kubernetes {NAMESPACE}"


def given(api: FakeApi, replica: FakeReplica, **conditions: bool) -> None:
    """The replica is an endpoint in this state."""
    host, _, port = replica.url.removeprefix("http://").partition(":")
    ports = ({"name": "http", "port": int(port), "protocol": "TCP"},)
    api.put(endpoint_slice("a", endpoint(host, name="vllm-0", uid="u", zone="z1", **conditions), ports=ports))


def settings(api: FakeApi, directory: Path) -> plane.Settings:
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
