"""The wall between the planes and the engine: what is called, and by whom."""

import ast
import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import skylb
from skylb import _core
from skylb._core import Engine, Post, Tell
from skylb.localrouter import LocalRouter
from skylb.mesh.signing import Identity
from skylb.router import Effect, Router
from skylb.settings.engine import EngineSettings
from skylb.types import Address, Replica
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

    def _deliver(self, effects: Sequence[Effect | Post]) -> None:
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


# ------------------------------------------------------------------------------ deadlines


def router(on_failure: Callable[[str, BaseException], None] | None = None) -> LocalRouter:
    return LocalRouter(Engine(EngineSettings().model_dump_json().encode(), b"k" * 16, 1), on_failure)


def replicas(count: int) -> list[Replica]:
    address = Address("127.0.0.1", 9)
    return [Replica(number, f"r{number}", address, "t") for number in range(1, count + 1)]


async def while_it_ticks(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the engine's deadlines have no event
            await asyncio.sleep(0.001)


def test_an_effect_that_fails_is_told_and_keeps_no_other_from_being_carried_out() -> None:
    tried: list[int] = []
    told: list[str] = []

    def probe(replica_id: int) -> None:
        tried.append(replica_id)
        raise ZeroDivisionError

    async def test() -> None:
        local = router(lambda name, error: told.append(f"{name}: {error!r}"))
        local.probe_with(probe)
        local.set_replicas(replicas(2))
        await while_it_ticks(lambda: len(tried) == 2)
        local.set_replicas(replicas(3))
        await while_it_ticks(lambda: len(tried) == 3)
        local.close()

    asyncio.run(test())
    assert sorted(tried) == [1, 2, 3]
    assert told == ["probe: ZeroDivisionError()"] * 3


def test_the_timer_is_never_set_to_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []

    async def test() -> None:
        local = router()
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", lambda delay, _: delays.append(delay))
        monkeypatch.setattr("skylb.localrouter.monotonic_ns", lambda: 1_000_000_000)
        for left_ns in (-5, 0, 1, 400_000, 1_000_000, 1_000_001):
            local._timer = None
            monkeypatch.setattr(local, "_engine", Due(1_000_000_000 + left_ns))
            local._arm()

    asyncio.run(test())
    assert delays == [0, 0, 0.001, 0.001, 0.001, 0.002]


class Due:
    """An engine with a deadline."""

    def __init__(self, at_ns: int) -> None:
        self.at_ns = at_ns

    def next_deadline_ns(self) -> int:
        return self.at_ns


def test_the_end_of_a_connection_that_was_replaced_ends_nothing() -> None:
    told: list[str] = []

    def earlier(_: Tell) -> None:
        told.append("earlier")

    def later(_: Tell) -> None:
        told.append("later")

    async def test() -> None:
        local = router()
        local.set_self(Identity("us", 1), "us")
        local.set_peers([(1, "eu", "eu", True)])
        local.peer_started(1, 1)
        for tell in (earlier, later):
            local.peer_connected(1, [_core.MESSAGE_SUMMARY], tell)
        local.peer_disconnected(1, earlier)
        await while_it_ticks(lambda: told)
        local.peer_disconnected(1, later)
        local.peer_disconnected(1, later)
        local.close()

    asyncio.run(test())
    assert set(told) == {"later"}
