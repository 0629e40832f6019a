"""A watcher of EndpointSlices in front of a small API server, and what it makes of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from skylb.discovery.kubernetes.api import Api
from skylb.discovery.kubernetes.slices import Slice
from skylb.discovery.kubernetes.watch import Place, Watcher
from tests.support.kubernetes import NAMESPACE, FakeApi, endpoint, endpoint_slice, fake_api
from tests.support.plane import until

SELECTOR = "kubernetes.io/service-name=vllm"


class World:
    """A server, and what a watcher makes of it."""

    def __init__(self, api: FakeApi, client: Api, config: Path) -> None:
        self.api = api
        self.client = client
        self.config = config
        self.taken: list[list[str]] = []
        self.passed = asyncio.Event()
        place = Place("replicas", NAMESPACE, SELECTOR)
        self.watcher = Watcher(client, place, self._take, self.passed, lambda low, _high: low)

    def _take(self, slices: Sequence[Slice]) -> None:
        self.taken.append(sorted(one.metadata.name for one in slices))

    async def sees(self, *names: str) -> None:
        """Waits until these are the slices taken last."""
        await until(lambda: bool(self.taken) and self.taken[-1] == sorted(names), f"{names}: {self.taken}")

    async def watches(self, count: int) -> None:
        """Waits until so many watches were asked for, and the last one is open."""
        await until(
            lambda: len(self.api.watched) >= count and self.api.watches_len == 1,
            f"{count} watches: {self.api.asked}",
        )


@asynccontextmanager
async def following(
    directory: Path, *, prepare: Callable[[FakeApi], None] | None = None
) -> AsyncIterator[World]:
    async with fake_api() as api:
        if prepare is not None:
            prepare(api)
        config = api.config(directory / "config")
        client = Api(config)
        await client.open()
        world = World(api, client, config)
        task = asyncio.create_task(world.watcher.run())
        try:
            yield world
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())


def three(api: FakeApi) -> None:
    """Three slices: two pages."""
    for name in ("a", "b", "c"):
        api.put(endpoint_slice(name, endpoint("10.0.0.1")))
