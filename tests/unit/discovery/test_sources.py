"""The table of sources: every option has a row, and every source does what control asks of it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from skylb.config import DiscoverySettings, Settings
from skylb.discovery.source import Offered, Site, Source
from skylb.discovery.sources import SourceSettings, given, make, usage

URL = "http://127.0.0.1:8000"


def example(option: str, directory: Path) -> object:
    """A value of a source's option that stands for one replica, `URL`."""
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
        options = SourceSettings.model_validate({option: example(option, tmp_path)})
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
        assert [*world.offers.values()] == [[URL]]
        assert sources[0].unresolved() == {}
        assert sources[0].name

    asyncio.run(test())


def test_all_options_count_together(tmp_path: Path) -> None:
    async def test() -> None:
        names = [*SourceSettings.model_fields]
        options = SourceSettings.model_validate({name: example(name, tmp_path) for name in names})
        assert len(World(options).sources) == len(names)

    asyncio.run(test())


def test_without_a_source_there_is_none_and_an_error_names_the_flags_of_all() -> None:
    assert not given(SourceSettings())
    sentences = [sentence for _, sentence in Settings().conflicts()]
    assert sentences == [f"no replicas: expected {usage()}"]
    assert usage() == "--replica URL, --replicas-file FILE or --replicas-dns URL"
