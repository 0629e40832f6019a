"""Metrics asked for by name: engines that take that, those that do not, and those that change."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from aiohttp import web

from tests.support.plane import SGLANG_PAGE, VLLM_PAGE, FakeReplica, run, running, settings, until


def lines_of(replica: FakeReplica, names: list[str]) -> web.Response:
    """The lines about these metrics, as a Prometheus client library picks them."""
    lines = replica.page.splitlines(keepends=True)
    return web.Response(text="".join(line for line in lines if line.partition("{")[0] in names))


def hang_up(replica: FakeReplica, names: list[str]) -> web.Response:
    """Nothing, and the connection is gone."""
    raise asyncio.CancelledError


def test_a_replica_that_takes_names_is_asked_for_no_whole_page_again() -> None:
    async def test(replica: FakeReplica) -> None:
        replica.narrow = lines_of
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            await until(lambda: replica.narrowed > 5, "narrowed pages are asked for")
            assert replica.probes == 1
            replica.page = VLLM_PAGE.format(running=5, waiting=0)
            await until(lambda: plane.gauge(replica.url).running == 5, "they are read")
            assert plane.state(replica.url) == "up"

    run(test)


@pytest.mark.parametrize(
    "narrow",
    [
        None,
        hang_up,
        lambda *_: web.Response(text=""),
        lambda *_: web.Response(text='vllm:num_requests_running{engine="0"} 3.0\n'),
        lambda *_: web.Response(text="vllm:num_requests_running 9\nvllm:num_requests_waiting 9\n"),
    ],
    ids=["404", "no answer", "empty", "no load", "less than the whole page"],
)
def test_a_replica_that_takes_no_names_is_asked_once_and_then_for_whole_pages(
    narrow: Callable[..., web.Response] | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(replica: FakeReplica) -> None:
        replica.narrow = narrow
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            await until(lambda: replica.probes > 10, "it is probed on")
            # One probe, sent once more where it found its connection gone.
            assert replica.narrowed <= 2
            gauge = plane.gauge(replica.url)
            assert (gauge.running, gauge.waiting, gauge.blind) == (3, 1, False)

    with caplog.at_level(logging.INFO, logger="skylb.control.probe"):
        run(test)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_replica_that_takes_names_no_longer_is_read_without_a_gap(caplog: pytest.LogCaptureFixture) -> None:
    async def test(replica: FakeReplica) -> None:
        replica.narrow = lines_of
        async with running(settings(replica.url)) as plane:
            await until(lambda: replica.narrowed > 2, "narrowed pages are asked for")
            replica.narrow, replica.page = None, SGLANG_PAGE
            await until(lambda: plane.gauge(replica.url).running == 2, "another engine's whole page is read")

    with caplog.at_level(logging.INFO, logger="skylb.control.probe"):
        run(test)
    assert not [record for record in caplog.records if "blind" in record.getMessage()]
