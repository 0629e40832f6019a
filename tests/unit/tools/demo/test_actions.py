"""The demo's switches turn all balancers, or none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from skylb.tools.demo import DemoSettings
from skylb.tools.demo.actions import Action, ActionError, Actions
from skylb.tools.demo.children import Child, Children
from skylb.tools.demo.regions import World


class Balancer:
    """An admin listener that keeps what it is asked, and obeys so many requests."""

    def __init__(self) -> None:
        self.obeys = 100
        self.closes = False
        self.told: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        said = (await request.json())["policy"] if request.method == "PUT" else request.path
        self.told.append(said)
        self.obeys -= 1
        if self.closes and request.transport is not None:
            request.transport.abort()
        return web.Response(status=200 if self.obeys >= 0 else 503)


@asynccontextmanager
async def demo() -> AsyncIterator[tuple[Actions, World, dict[str, Balancer]]]:
    """Three regions whose balancers run, as far as the demo knows."""
    world = World(DemoSettings(), Children(), Path())
    balancers = {str(name): Balancer() for name in world.regions}
    async with AsyncExitStack() as stack:
        for name, region in world.regions.items():
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", balancers[name].handle)
            server = await stack.enter_async_context(TestServer(app, shutdown_timeout=0.1))
            region.admin = str(server.make_url("")).rstrip("/")
            region.balancer = cast(Child, object())
        yield Actions(world, lambda: 7.0), world, balancers


def turn(what: str, name: str) -> Action:
    return Action("set", "policy" if what == "policy" else "share", name)


def test_a_switch_turns_every_balancer_that_runs() -> None:
    async def test() -> None:
        async with demo() as (buttons, world, balancers):
            world.regions["asia"].balancer = None
            await buttons.perform(turn("policy", "round_robin"))
            await buttons.perform(turn("share", "off"))
            assert (world.policy, world.share) == ("round_robin", False)
            assert balancers["us"].told == ["round_robin", "/peers/eu/isolate", "/peers/asia/isolate"]
            assert balancers["asia"].told == []

    asyncio.run(test())


@pytest.mark.parametrize("closes", [True, False])
def test_where_a_balancer_does_not_obey_the_policy_those_before_it_are_set_back(
    closes: bool,
) -> None:
    async def test() -> None:
        async with demo() as (buttons, world, balancers):
            balancers["eu"].obeys, balancers["eu"].closes = 0, closes
            with pytest.raises(ActionError, match=r"balancer eu: it does not obey .*others are as before"):
                await buttons.perform(turn("policy", "round_robin"))
            assert world.policy == "predictive"
            assert balancers["us"].told == ["round_robin", "predictive"]
            assert balancers["eu"].told[-1] == "predictive"  # it may come round later
            assert balancers["asia"].told == []
            assert buttons.news[0][1].startswith("switch not turned: balancer eu: ")

    asyncio.run(test())


def test_where_a_balancer_does_not_leave_the_others_they_are_taken_back() -> None:
    async def test() -> None:
        async with demo() as (buttons, world, balancers):
            balancers["asia"].obeys = 0
            with pytest.raises(ActionError, match="balancer asia: "):
                await buttons.perform(turn("share", "off"))
            assert world.share
            assert balancers["us"].told[-2:] == ["/peers/eu/rejoin", "/peers/asia/rejoin"]

    asyncio.run(test())


def test_those_that_cannot_be_set_back_are_named() -> None:
    async def test() -> None:
        async with demo() as (buttons, world, balancers):
            balancers["us"].obeys, balancers["eu"].obeys = 1, 0
            with pytest.raises(ActionError, match=r"balancer eu: .*us cannot be set back"):
                await buttons.perform(turn("policy", "round_robin"))
            assert world.policy == "predictive"

    asyncio.run(test())
