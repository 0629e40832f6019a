"""Streams of a balancer with workers go on elsewhere, whoever dies: replicas, or the engine process too."""

import json
import os
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.integration.test_continuing import FAST, ON, SLOW, Heard, asked, hear, reason
from tests.support.processes import (
    PATIENCE_S,
    Balancer,
    Child,
    answers,
    balancer,
    eventually,
    get,
    mocks,
    post_stream,
    start_mocks,
)
from tests.support.workers import engine_pid, pids, shares

LONG = 400
"""Tokens of an answer that takes seconds."""

ALL = "".join(f"{index:04}" for index in range(LONG))
STREAMS = 12


@contextmanager
def fleet(count: int, *arguments: str) -> Iterator[tuple[Balancer, list[Child]]]:
    """A balancer with two workers, in front of replicas with a process each."""
    with ExitStack() as stack:
        children, urls = [], []
        for _ in range(count):
            child, (url,) = start_mocks(1, *SLOW)
            stack.callback(child.stop)
            children.append(child)
            urls.append(url)
        front = stack.enter_context(balancer(*urls, arguments=["--workers", "2", *ON, *arguments]))
        eventually(lambda: len(pids(front)) == 2, what="workers")
        yield front, children


def read(front: Balancer, number: int, begun: threading.Semaphore) -> Heard:
    """One stream; it says when it has begun."""
    heard = Heard()
    for data in post_stream(f"{front.url}/v1/chat/completions", asked(number, max_tokens=LONG)):
        heard.add(data)
        if len(heard.text) == 8:
            begun.release()
    return heard


def under(front: Balancer, fault: Callable[[], object]) -> None:
    """Streams at both workers; all are whole, whatever the fault is."""
    begun = threading.Semaphore(0)
    with ThreadPoolExecutor(4 * STREAMS) as threads:
        reading: list[Future[Heard]] = []

        def more() -> bool:
            reading.extend(
                threads.submit(read, front, len(reading) + each, begun) for each in range(STREAMS // 2)
            )
            for _ in range(STREAMS // 2):
                assert begun.acquire(timeout=PATIENCE_S)
            eventually(lambda: sum(shares(front).values()) >= STREAMS // 2, what="workers tell of them")
            return len(reading) >= STREAMS and all(shares(front).values())

        while not more():
            assert len(reading) < 4 * STREAMS, "one worker gets all connections"
        fault()
        for one in reading:
            heard = one.result(timeout=4 * PATIENCE_S)
            assert heard.errors == []
            assert heard.text == ALL
            assert (heard.finishes, heard.ends, len(heard.names)) == (["length"], 1, 1)
            (usage,) = heard.usages
            assert usage["completion_tokens"] == LONG
    eventually(lambda: front.metric("skylb_replica_in_flight") == 0, what="nothing in flight")
    eventually(lambda: front.metric("skylb_kept_bytes") == 0, what="nothing kept")


def kill_engine_process(front: Balancer) -> None:
    """SIGKILL, and nobody has taken its place yet."""
    os.kill(engine_pid(front), signal.SIGKILL)


def another(front: Balancer, before: int) -> None:
    """Waits for the next engine process."""
    eventually(lambda: answers(f"{front.admin}/ready") and engine_pid(front) != before, what="another one")


def test_streams_of_all_workers_go_on_when_replicas_are_killed() -> None:
    with fleet(3) as (front, replicas):

        def fault() -> None:
            eventually(lambda: front.metric("skylb_kept_bytes") > 0, what="ids are kept, and it is told")
            replicas[0].kill()
            replicas[1].kill()

        under(front, fault)
        eventually(lambda: front.metric("skylb_streams_continued_total") >= 1, what="it is counted")
        assert reason(front) == {}
        line = eventually(lambda: [of for of in front.log() if of.get("continued")], what="a line")[-1]
        assert (line["status"], line["error_code"]) == (200, None)
        receipt = json.loads(get(f"{front.admin}/requests/{line['request_id']}"))
        failed = [of["failed"] for of in receipt["decisions"] if of["result"] == "push"]
        assert failed[-1] is None
        assert len(failed) > line["continued"]
        assert set(failed[:-1]) <= {"reset", "connect"}, (
            "the other one may be chosen before it is known to be dead"
        )


def test_streams_go_on_when_the_engine_process_was_killed_a_moment_before_the_replica() -> None:
    with fleet(3) as (front, replicas):

        def fault() -> None:
            kill_engine_process(front)
            replicas[0].kill()

        under(front, fault)
        eventually(lambda: front.metric("skylb_streams_continued_total") >= 1, what="it is counted")


def test_streams_that_were_adopted_go_on_when_their_replica_is_killed_later() -> None:
    with fleet(3) as (front, replicas):

        def fault() -> None:
            before = engine_pid(front)
            kill_engine_process(front)
            another(front, before)
            replicas[0].kill()

        under(front, fault)
        eventually(lambda: front.metric("skylb_streams_continued_total") >= 1, what="it is counted")


def test_a_stream_may_go_on_again_and_again_with_another_engine_process_each_time() -> None:
    with fleet(4) as (front, replicas):

        def fault() -> None:
            for replica in replicas[:3]:
                before = engine_pid(front)
                kill_engine_process(front)
                replica.kill()
                another(front, before)

        under(front, fault)


def test_streams_leave_a_replica_that_ends_soon() -> None:
    with fleet(2) as (front, _):
        urls = [of["name"] for of in front.state()["engine"]["replicas"]]

        def fault() -> None:
            url = f"{front.admin}/replicas/{urls[0].removeprefix('http://')}/leave?in=1"
            with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=PATIENCE_S):
                pass

        under(front, fault)
        eventually(
            lambda: 'skylb_streams_continued_total{cause="withdrawn"}' in front.metrics(),
            what="streams were withdrawn",
        )


def switch(front: Balancer, word: str) -> dict[str, str]:
    """Turns continuing on or off."""
    body = json.dumps({"continuing": word}).encode()
    asking = urllib.request.Request(f"{front.admin}/continuing", body, method="PUT")
    with urllib.request.urlopen(asking, timeout=PATIENCE_S) as answer:
        found: dict[str, str] = json.load(answer)
        return found


def test_the_switch_reaches_all_workers() -> None:
    with mocks(1, *FAST, "--fault-cut-after-tokens", "7") as bad, mocks(1, *FAST) as good:
        with balancer(*bad, *good, arguments=["--workers", "2"]) as front:
            eventually(lambda: len(pids(front)) == 2, what="workers")

            def cut() -> int:
                return sum(bool(hear(front.url, asked(number)).errors) for number in range(12))

            assert cut() > 0
            assert switch(front, "on") == {"continuing": "on", "before": "off"}
            eventually(lambda: cut() == 0, what="both workers know")
            assert front.metric("skylb_streams_continued_total") > 0
            assert switch(front, "off") == {"continuing": "off", "before": "on"}
            eventually(lambda: cut() > 0, what="both workers know")


@pytest.mark.parametrize("more", [{"seed": 7}, {"top_logprobs": 1, "logprobs": True}])
def test_what_does_not_go_on_is_counted_whichever_worker_has_it(more: dict[str, Any]) -> None:
    with mocks(2, *FAST, "--fault-cut-after-tokens", "7") as bad:
        with balancer(*bad, arguments=["--workers", "2", *ON]) as front:
            for number in range(6):
                heard = hear(front.url, asked(number, **more))
                assert len(heard.errors) == 1
            eventually(lambda: sum(reason(front).values()) == 6, what="six are counted")
