"""Who the peers are, from flags, a file and DNS, and what happens to those who leave the list."""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import orjson
import pytest

from skylb.addresses import PeerUrl
from skylb.config import Settings
from skylb.errors import ConfigError
from skylb.mesh.peerlist import PeerList
from skylb.options import load
from skylb.parts import check_files
from skylb.tasks import TaskGroup
from tests.support.kubernetes import endpoint, endpoint_slice, fake_api
from tests.support.plane import until

EU = "eu=http://10.0.0.2:1"
ASIA = "asia=http://10.0.0.3:1,http://10.0.0.3:2"
OWN = ("us.example.net", 9001)


class Dns:
    """What DNS answers at present: targets, or an error."""

    def __init__(self) -> None:
        self.answer: list[tuple[str, int]] | OSError = []

    async def __call__(self, name: str) -> list[tuple[str, int]]:
        assert name == "_skylb._tcp.example.net"
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


class World:
    """A list of peers, and what the mesh was told."""

    def __init__(
        self,
        tmp_path: Path,
        *,
        flags: Sequence[str] = (),
        dns: bool = False,
        more: Mapping[str, list[str]] = MappingProxyType({}),
    ) -> None:
        keys = tmp_path / "keys"
        keys.write_text("k1:MDEyMzQ1Njc4OWFiY2RlZg==\n")
        self.file = tmp_path / "peers"
        given = {
            "replica": ["http://10.0.0.9:8000"],
            "region": ["us"],
            "peer_key_file": [str(keys)],
            "peer_listen": ["10.0.0.1:9000"],
            "sync_listen": ["10.0.0.1:9001"],
            "peer": list(flags),
            **more,
        }
        given |= {"peers_dns": ["_skylb._tcp.example.net"]} if dns else {"peers_file": [str(self.file)]}
        self.file.write_text(f"{EU}\n")
        self.settings = load(Settings, flags=given).settings
        self.dns = Dns()
        self.told: list[list[str]] = []
        self.list = PeerList(self.settings, self._take, self.dns)

    def _take(self, urls: Sequence[PeerUrl]) -> None:
        self.told.append([str(url) for url in urls])

    def writes(self, text: str) -> None:
        """Changes the file so that it looks changed, whatever the clock's grain."""
        self.file.write_text(text)
        at_ns = 10**18 + len(self.told) * 10**9 + len(text)
        os.utime(self.file, ns=(at_ns, at_ns))

    async def start(self) -> None:
        """Reads the sources once."""
        tasks = TaskGroup(self._failed)
        await self.list.start(tasks)
        await tasks.stop()

    def _failed(self, name: str, error: BaseException) -> None:
        raise AssertionError(name) from error


def test_flags_and_file_make_one_list_and_the_file_is_read_again(tmp_path: Path) -> None:
    async def run() -> None:
        await world.start()
        world.writes(f"{ASIA}  # moved\n")
        await world.list.renew()

    world = World(tmp_path, flags=["us-2=http://10.0.0.4:1"])
    asyncio.run(run())
    assert world.told == [["us-2=http://10.0.0.4:1", EU], ["us-2=http://10.0.0.4:1", ASIA]]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{EU}\nus=http://10.0.0.7:1\n", "us=http://10.0.0.7:1 is this balancer itself: expected others"),
        (f"{EU}\n{EU}\n", f"{EU} is given twice: expected distinct peers"),
        (f"{EU}\neu=http://10.0.0.7:1\n", "two peers are called eu: expected one of each name"),
        (
            f"{EU}\nasia=http://10.0.0.2:1\n",
            "two peers are at http://10.0.0.2:1: expected distinct addresses",
        ),
    ],
)
def test_a_file_that_contradicts_itself_is_an_error_at_start_and_changes_nothing_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, fault: str
) -> None:
    world = World(tmp_path)
    world.writes(text)
    with pytest.raises(ConfigError) as caught:
        asyncio.run(world.start())
    assert caught.value.faults == [f"{world.file}: {fault}"]
    with pytest.raises(ConfigError) as caught:
        check_files(world.settings)
    assert caught.value.faults == [f"{world.file}: {fault}"]

    async def run() -> None:
        world.writes(f"{EU}\n")
        await world.start()
        for _ in range(2):
            world.writes(text)
            await world.list.renew()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert world.told == [[EU]]
    assert [record.getMessage() for record in caplog.records] == [
        f"{world.file}: {fault}; the last good list stays"
    ]


def test_a_file_that_repeats_a_flag_is_an_error(tmp_path: Path) -> None:
    world = World(tmp_path, flags=[EU])
    with pytest.raises(ConfigError, match="is given twice"):
        asyncio.run(world.start())


def test_dns_names_balancers_by_the_first_label_and_never_this_one(tmp_path: Path) -> None:
    world = World(tmp_path, flags=[EU], dns=True)
    world.dns.answer = [("asia.example.net", 9001), OWN, ("eu.example.net", 9001)]
    asyncio.run(world.start())
    assert world.told == [[EU, "asia=http://asia.example.net:9001"]]


def test_who_speaks_tls_expects_it_of_those_that_dns_names(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"
    cert.touch()
    key.touch()
    tls = {"peer_tls_cert": [str(cert)], "peer_tls_key": [str(key)]}
    world = World(tmp_path, dns=True, more=tls)
    world.dns.answer = [("asia.example.net", 9001)]
    asyncio.run(world.start())
    assert world.told == [["asia=https://asia.example.net:9001"]]


def test_what_dns_cannot_tell_or_contradicts_changes_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        world.dns.answer = [("eu.example.net", 9001)]
        await world.start()
        for answer in (OSError("no such name"), [("asia.a.net", 1), ("asia.b.net", 1)]):
            world.dns.answer = answer
            await world.list.look_up("_skylb._tcp.example.net")
            await world.list.look_up("_skylb._tcp.example.net")

    world = World(tmp_path, dns=True)
    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert world.told == [["eu=http://eu.example.net:9001"]]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "no such name" in said[0]
    assert "two peers are called asia" in said[1]


SYNC = ({"name": "sync", "port": 9001, "protocol": "TCP"},)


SERVICE = "kubernetes skylb.mesh"
"""What metrics call the source."""


def test_peers_of_a_kubernetes_service_are_followed_and_this_balancer_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skylb")

    async def run() -> None:
        async with fake_api() as api:
            api.put(_service(*(("us-1", "10.0.0.4"), ("us-2", "10.0.0.5"), ("eu", "10.0.0.6"))))
            more = {
                "name": ["us-1"],
                "peer_kubernetes_service": ["skylb.mesh"],
                "kubernetes.config": [str(api.config(tmp_path / "kubeconfig"))],
            }
            world = World(tmp_path, more=more)
            tasks = TaskGroup(world._failed)
            await world.list.start(tasks)
            us_2 = "us-2@us=http://10.0.0.5:9001"
            assert world.told[-1] == [EU, us_2], "the first list is there, and the file's peer counts first"
            assert {name: fault for name, (_, fault) in world.list.sources().items()} == {
                str(world.file): None,
                SERVICE: None,
            }
            assert {query["namespace"] for query in api.asked} == {"mesh"}
            assert {query["labelSelector"] for query in api.asked} == {"kubernetes.io/service-name=skylb"}
            await until(lambda: api.watches_len == 1, "watched")
            told_len = len(world.told)
            api.put(_service(*((f"us-{number}", f"10.0.1.{number}") for number in range(100, 165))))
            await until(lambda: bool(caplog.records), "too many")
            assert len(world.told) == told_len
            refused_ns, fault = world.list.sources()[SERVICE]
            assert fault == "Service skylb.mesh: 66 peers: expected at most 64"
            api.bookmark()
            watcher = world.list._watcher
            assert watcher is not None
            await until(lambda: watcher.seen_ns > refused_ns, "the API server is heard")
            assert world.list.sources()[SERVICE] == (refused_ns, fault), "the list in use is as old as before"
            api.put(_service(("us-3", "10.0.0.7"), ("us-1", "10.0.0.4")))
            await until(lambda: world.told[-1] == [EU, "us-3@us=http://10.0.0.7:9001"], "followed")
            assert world.list.sources()[SERVICE][0] > refused_ns
            assert world.list.sources()[SERVICE][1] is None
            await world.list.renew()
            await tasks.stop()

    def _service(*ends: tuple[str, str]) -> dict[str, object]:
        found = [endpoint(address, name=name, uid=name) for name, address in ends]
        return endpoint_slice("skylb-1", *found, ports=SYNC, service="skylb")

    asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == [
        "Service skylb.mesh: 66 peers: expected at most 64; the last good list stays",
        "Service skylb.mesh: good again",
    ]


def test_a_kubeconfig_that_is_none_is_an_error_at_start(tmp_path: Path) -> None:
    broken = tmp_path / "kubeconfig"
    broken.write_text("7")
    more = {
        "name": ["us-1"],
        "peer_kubernetes_service": ["skylb"],
        "kubernetes.config": [str(broken)],
    }
    world = World(tmp_path, more=more)
    with pytest.raises(ConfigError, match="expected a kubeconfig"):
        asyncio.run(world.start())
    with pytest.raises(ConfigError, match="expected a kubeconfig"):
        check_files(world.settings)


def by_service(config: Path) -> dict[str, list[str]]:
    """Settings of a balancer whose peers are behind a Service."""
    return {
        "name": ["us-1"],
        "peer_kubernetes_service": ["skylb.mesh"],
        "kubernetes.config": [str(config)],
    }


def test_credentials_that_nobody_gives_at_start_are_a_fault_of_the_list(tmp_path: Path) -> None:
    async def run() -> None:
        async with fake_api() as api:
            config = api.config(tmp_path / "kubeconfig")
            found = orjson.loads(config.read_bytes())
            helper = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/false"}
            found["users"][0]["user"] = {"exec": helper}
            config.write_bytes(orjson.dumps(found))
            more = by_service(config)
            world = World(tmp_path, more=more)
            tasks = TaskGroup(world._failed)
            await world.list.start(tasks)
            _, fault = world.list.sources()[SERVICE]
            assert "the credential helper /bin/false ends with status 1" in str(fault)
            await tasks.stop()

    asyncio.run(run())


def test_an_api_server_that_is_away_at_start_is_a_fault_of_the_list(tmp_path: Path) -> None:
    async def run() -> None:
        async with fake_api() as api:
            config = api.config(tmp_path / "kubeconfig")
        more = by_service(config)
        world = World(tmp_path, more=more)
        tasks = TaskGroup(world._failed)
        await world.list.start(tasks)
        _, fault = world.list.sources()[SERVICE]
        assert fault is not None
        assert f"{api.url} is not reached" in fault
        await tasks.stop()

    asyncio.run(run())


def test_the_list_of_dns_ages_while_dns_does_not_answer(tmp_path: Path) -> None:
    async def run() -> None:
        world.dns.answer = [("eu.example.net", 9001)]
        await world.start()
        seen_ns, fault = world.list.sources()[source]
        assert fault is None
        world.dns.answer = OSError("no such name")
        await world.list.look_up("_skylb._tcp.example.net")
        assert world.list.sources()[source] == (seen_ns, f"SRV records of {source[4:]}: no such name")
        world.dns.answer = []
        await world.list.look_up("_skylb._tcp.example.net")
        again_ns, fault = world.list.sources()[source]
        assert again_ns > seen_ns
        assert fault is None

    source = "dns _skylb._tcp.example.net"
    world = World(tmp_path, dns=True)
    asyncio.run(run())
