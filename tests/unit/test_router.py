"""The wall between the planes and the engine: what is called, and by whom."""

import ast
import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import skylb
from skylb.localrouter import LocalRouter
from skylb.router import Effect, Router
from tests.support.dataplane import END, STREAM_HEAD, Calls, World, answer, chat, event, plays, settle

PACKAGE = Path(skylb.__file__).parent
PLANES = ("data", "control", "mesh")


def reaches_engine(source: str) -> bool:
    """Whether a module names the engine itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "skylb._core":
            if any(alias.name == "Engine" for alias in node.names):
                return True
        elif isinstance(node, ast.Attribute) and node.attr == "Engine":
            return True
    return False


def sources() -> Iterator[Path]:
    for plane in PLANES:
        yield from (PACKAGE / plane).rglob("*.py")


def test_no_plane_names_the_engine() -> None:
    assert [path.name for path in sources() if reaches_engine(path.read_text())] == []
    assert len(list(sources())) > 30


def test_a_plane_that_does_is_found() -> None:
    assert reaches_engine("from skylb._core import Engine, Head\n")
    assert reaches_engine("from skylb import _core\n\ndef made() -> object:\n    return _core.Engine\n")
    assert not reaches_engine("from skylb._core import Head\nfrom skylb.engine import Engine\n")


def test_the_router_of_this_process_does_all_that_the_planes_call() -> None:
    called = {name for name in vars(Router) if not name.startswith("_")}
    assert called - set(vars(LocalRouter)) == set()


class Late(Calls):
    """Effects come a turn of the loop later, as from another process; those of ended requests are dropped."""

    def _deliver(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            asyncio.get_running_loop().call_soon(self._arrive, effect)

    def _arrive(self, effect: Any) -> None:
        if effect.request_id in self._sinks:
            super()._deliver((effect,))


def test_the_data_plane_serves_requests_whose_effects_come_later() -> None:
    async def test(world: World) -> None:
        first, second = world.client(), world.client()
        first.feed(chat(text="first"))
        second.feed(chat(stream=True, text="second"))
        assert (world.pool.wires, world.calls()) == ([], ["submit", "submit"])
        replica = await world.sent()
        assert (b"first" in replica.taken(), world.engine.hold_requests) == (True, 1)
        replica.feed(answer())
        assert b"second" in (await world.sent()).taken()
        replica.feed(STREAM_HEAD + event("1") + END)
        assert first.written.startswith(b"HTTP/1.1 200 ")
        assert second.written.endswith(event("1") + END)
        assert world.calls() == ["first_byte", "complete ok"] * 2

    plays(test, at_once=1, router=Late)


def test_an_attempt_that_fails_is_made_elsewhere_or_told_also_when_the_router_answers_later() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat())
        (await world.sent()).feed(answer(500, b"first"))
        assert client.written == b""
        (await world.sent()).feed(answer(500, b"second"))
        await settle()
        assert client.written.endswith(b"\r\n\r\nsecond")
        assert world.calls() == ["submit", "retry status", "retry status"]

    plays(test, replicas=2, attempts_max=2, router=Late)
