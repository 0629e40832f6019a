"""What `make validate-sim` and `make validate-model` decide, and how they end when something fails."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest

from bench.validate import cores, engine, realtime
from bench.validate.calibrate import reached_while
from bench.validate.client import Outcome
from bench.validate.realtime import LOADS, REPEATED, plan


def test_repeats_are_outermost_and_policies_in_another_order_each_time() -> None:
    planned = list(plan(list(LOADS), []))
    repeats = [repeat for repeat, _, _ in planned]
    assert repeats == sorted(repeats)
    assert len(planned) == len(set(planned))
    for name, load in LOADS.items():
        for policy in load.policies:
            runs = sum((name, policy) == one[1:] for one in planned)
            assert runs == (load.repeats if policy in REPEATED else 1)
    orders = {tuple(policy for _, name, policy in planned if name == load) for load in ("chat", "tree")}
    assert len(orders) == 2
    assert planned == list(plan(list(LOADS), []))


def test_a_part_of_the_loads_or_a_shorter_run_is_not_whole() -> None:
    assert realtime.parsed([]).whole
    assert not realtime.parsed(["--scenarios", "chat"]).whole
    assert not realtime.parsed(["--policies", "prefix"]).whole
    assert not realtime.parsed(["--seconds", "5"]).whole
    assert engine.parsed([]).whole
    assert not engine.parsed(["--repeats", "1"]).whole
    assert not engine.parsed(["--seconds", "5"]).whole


def test_a_decode_that_fails_ends_the_wait_for_its_tokens() -> None:
    async def failing() -> Outcome:
        raise ConnectionError("refused")

    async def ending() -> Outcome:
        return Outcome(0.0)

    async def wait(answer: Coroutine[Any, Any, Outcome]) -> None:
        await reached_while(asyncio.Event(), asyncio.gather(answer))

    with pytest.raises(ConnectionError, match="refused"):
        asyncio.run(wait(failing()))
    with pytest.raises(RuntimeError, match="ended before"):
        asyncio.run(wait(ending()))


def test_a_run_whose_engine_could_not_be_watched_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody:
        def __init__(self, *_: object) -> None:
            pass

        async def run(self) -> dict[int, Outcome]:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return {}

    async def watch(_server: str, _loads: object) -> None:
        raise KeyError("running")

    monkeypatch.setattr(engine, "Users", Nobody)
    monkeypatch.setattr(engine, "_watch", watch)
    with pytest.raises(KeyError, match="running"):
        asyncio.run(engine.measured("http://a", "http://b", [], 1.0, 1))


def test_a_server_without_processes_of_vllms_names_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_put", lambda _pid, _core: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    with pytest.raises(RuntimeError, match="VLLM::EngineCore"):
        cores.apart(os.getsid(0))
