"""The table of sources: every option has a row, and every source does what control asks of it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from skylb.clock import monotonic_ns
from skylb.config import DiscoverySettings, Settings
from skylb.discovery.source import PENDING, Lack, Offered, Site, Source, Trouble
from skylb.discovery.sources import SourceSettings, given, make, usage
from tests.support.kubernetes import FakeApi, endpoint, endpoint_slice, fake_api
from tests.support.plane import until

URL = "http://127.0.0.1:8000"


def example(option: str, directory: Path, api: FakeApi) -> object:
    """A value of a source's option that stands for one replica, `URL`."""
    if option == "kubernetes":
        api.put(endpoint_slice("a", endpoint("127.0.0.1")))
        return {"selector": "app=vllm", "config": api.config(directory / "kubeconfig")}
    if option.endswith("_file"):
        path = directory / "fleet"
        path.write_text(f"{URL}\n")
        return path
    return (URL,)


class World:
    """Takes what sources offer, as control does."""

    def __init__(self, options: SourceSettings) -> None:
        self.offers: dict[str, list[str]] = {}
        self.came = asyncio.Event()
        self.sources = make(options, DiscoverySettings(), Site(self._offer, lambda _: False))

    def _offer(self, source: str, replicas: Sequence[Offered]) -> None:
        self.offers[source] = [replica.name for replica in replicas]
        self.came.set()


@pytest.mark.parametrize("option", SourceSettings.model_fields)
def test_each_option_makes_a_source_that_offers_its_replicas(option: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with fake_api() as api:
            options = SourceSettings.model_validate({option: example(option, tmp_path, api)})
            assert given(options)
            world = World(options)
            sources: list[Source] = world.sources
            assert len(sources) == 1
            await sources[0].load()
            running = asyncio.create_task(sources[0].run())
            await sources[0].passed.wait()
            await world.came.wait()
            await sources[0].look()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert world.offers == {sources[0].name: [URL]}
            assert sources[0].troubles() == {}
            assert sources[0].seen_ns is None or 0 <= monotonic_ns() - sources[0].seen_ns < 60 * 10**9

    asyncio.run(test())


def test_all_options_count_together(tmp_path: Path) -> None:
    async def test() -> None:
        async with fake_api() as api:
            names = [*SourceSettings.model_fields]
            options = {name: example(name, tmp_path, api) for name in names}
            assert len(World(SourceSettings.model_validate(options)).sources) == len(names)

    asyncio.run(test())


def test_without_a_source_there_is_none_and_an_error_names_the_flags_of_all() -> None:
    assert not given(SourceSettings())
    sentences = [sentence for _, sentence in Settings().conflicts()]
    assert sentences == [f"no replicas: expected {usage()}"]
    assert usage() == (
        "--replica URL, --replicas-file FILE, --replicas-dns URL or --kubernetes-selector SELECTOR"
    )


def test_each_namespace_is_a_source_of_its_own(tmp_path: Path) -> None:
    async def test() -> None:
        async with fake_api() as api:
            kubernetes = {
                "selector": "app=vllm",
                "namespace": ("a", "b"),
                "config": api.config(tmp_path / "c"),
            }
            world = World(SourceSettings.model_validate({"kubernetes": kubernetes}))
            for source in world.sources:
                await source.load()
            running = [asyncio.create_task(source.run()) for source in world.sources]
            await until(lambda: len(world.offers) == 2, "both were listed")
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            assert world.offers == {"kubernetes a": [], "kubernetes b": []}
            assert {query["namespace"] for query in api.asked} == {"a", "b"}

    asyncio.run(test())


def test_what_makes_no_replica_and_what_matches_nothing_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with fake_api() as api:
            ports = ({"name": "a", "port": 1}, {"name": "b", "port": 2})
            kubernetes = {"selector": "app=vllm", "config": api.config(tmp_path / "c")}
            world = World(SourceSettings.model_validate({"kubernetes": kubernetes}))
            source = world.sources[0]
            await source.load()
            running = asyncio.create_task(source.run())
            await until(lambda: api.watches_len == 1, "watched")
            for number in range(3):
                api.put(endpoint_slice("a", endpoint(f"10.0.0.{number}"), ports=ports))
            await until(lambda: bool(source.troubles()), "told")
            fault = "Service vllm has a (1), b (2): expected kubernetes.port to name one of its ports"
            assert source.troubles() == {"kubernetes vllm": Trouble(Lack.UNLISTED, fault)}
            api.put(endpoint_slice("a", endpoint("10.0.0.9")))
            await until(lambda: not source.troubles(), "mended")
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert [record.getMessage() for record in caplog.records] == [
                "kubernetes vllm: no EndpointSlice matches app=vllm",
                f"kubernetes vllm: {fault}",
            ]

    asyncio.run(test())


def test_what_a_source_lacks_is_said_by_its_kind(tmp_path: Path) -> None:
    async def test() -> None:
        async with fake_api() as api:
            away = api.config(tmp_path / "away")
        listed = tmp_path / "fleet"
        listed.write_text(f"{URL}\n")
        options = SourceSettings.model_validate(
            {
                "replica": ("http://a.invalid:1",),
                "replicas_dns": ("http://b.invalid:1",),
                "replicas_file": listed,
                "kubernetes": {"selector": "app=vllm", "config": away},
            }
        )
        sources = World(options).sources
        for source in sources:
            await source.load()
        troubles = {name: str(one) for source in sources for name, one in source.troubles().items()}
        assert troubles == {
            "http://a.invalid:1": f"unresolved: {PENDING}",
            "http://b.invalid:1": f"unresolved: {PENDING}",
            "kubernetes vllm": f"unlisted: {api.url} has not answered yet",
        }
        listed.write_text("no URL\n")
        running = [asyncio.create_task(source.run()) for source in sources]
        for source in sources:
            await source.passed.wait()
            await source.look()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        troubles = {name: str(one) for source in sources for name, one in source.troubles().items()}
        assert troubles.keys() == {"http://a.invalid:1", "http://b.invalid:1", "kubernetes vllm", str(listed)}
        assert troubles["kubernetes vllm"].startswith(f"unlisted: {api.url} is not reached")
        assert troubles[str(listed)].startswith(f"unread: {listed}:1: expected")
        assert PENDING not in "".join(troubles.values())

    asyncio.run(test())
