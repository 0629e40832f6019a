"""Tasks that fail are heard of."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from skylb.app import Service
from skylb.config import Settings
from skylb.errors import TaskFailedError
from skylb.tasks import TaskGroup, attempt


async def fail() -> None:
    """A task with a fault."""
    raise ZeroDivisionError("planted")


def test_a_failed_task_is_logged_and_told_by_name(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []

    async def run() -> None:
        tasks = TaskGroup(lambda name, error: told.append((name, str(error))))
        await asyncio.wait([tasks.start(fail(), name="probe")])
        assert len(tasks) == 0

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert told == [("probe", "planted")]
    assert "task probe failed" in caplog.text


def test_an_attempt_that_fails_is_logged_and_its_caller_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        error = await attempt(fail(), name="hearing a stranger")
        assert isinstance(error, ZeroDivisionError)
        assert await attempt(asyncio.sleep(0), name="hearing another") is None

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert "hearing a stranger failed" in caplog.text
    assert "another" not in caplog.text


def test_an_attempt_ends_with_its_caller() -> None:
    ended: list[str] = []

    async def long(begun: asyncio.Event) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("the attempt")

    async def run() -> None:
        tasks, begun = TaskGroup(), asyncio.Event()
        caller = tasks.start(attempt(long(begun), name="long"), name="caller")
        await begun.wait()
        await tasks.stop()
        assert caller.cancelled()

    asyncio.run(run())
    assert ended == ["the attempt"]


def test_a_task_that_is_stopped_before_its_first_step_reaches_its_end() -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("the task")

    async def run() -> None:
        tasks = TaskGroup()
        tasks.start(long(), name="long")
        await tasks.stop()

    asyncio.run(run())
    assert ended == ["the task"]


def test_a_cancelled_task_is_no_failure() -> None:
    told: list[str] = []

    async def run() -> None:
        tasks = TaskGroup(lambda name, _error: told.append(name))
        tasks.start(asyncio.sleep(60), name="long")
        await tasks.stop()

    asyncio.run(run())
    assert told == []


def sweep_fails(service: Service) -> None:
    service.control._prober.sweep = lambda: 1 // 0  # type: ignore[assignment,return-value]  # the planted fault


def probing_fails(service: Service) -> None:
    service.router.probe_with(lambda _id: 1 // 0)


@pytest.mark.parametrize("plant", [sweep_fails, probing_fails])
def test_a_balancer_whose_probes_died_stops_in_order_and_says_why(plant: Callable[[Service], None]) -> None:
    settings = Settings(listen=["127.0.0.1:0"], admin="127.0.0.1:0", replica=["http://127.0.0.1:9"])

    async def run() -> None:
        service = Service(settings)
        plant(service)
        await service.run()

    with pytest.raises(TaskFailedError, match=r"^probe failed: ZeroDivisionError"):
        asyncio.run(run())
