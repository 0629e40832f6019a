"""A balancer of several processes: what each death costs, and that all is counted whoever served it."""

import asyncio
import json
import os
import signal
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from skylb.keys.edit import add_key
from skylb.workers.router import PATIENCE_S as ENGINE_PATIENCE_S
from tests.support.processes import PATIENCE_S, Balancer, answers, eventually, get
from tests.support.raw import Answer, Connection, ask, chat, request
from tests.support.workers import (
    HELLO,
    at_rest,
    engine_pid,
    engine_pid_if_any,
    frozen,
    in_flight,
    later,
    pids,
    shares,
    streaming,
    streams,
    whole,
    workers,
)


def test_what_any_worker_serves_is_counted_logged_and_explained() -> None:
    async def run(front: Balancer) -> None:
        for number in range(12):  # a connection each: both workers get some
            assert (await ask(front.port, request(chat("hi"), request_id=f"r-{number}"))).status == 200
        connection = await Connection.open(front.port)
        for number in range(12, 15):
            answer = await connection.ask(request(chat("hi", stream=True), request_id=f"r-{number}"))
            assert (answer.status, answer.done_events) == (200, 1)
        await connection.close()
        assert (await ask(front.port, request(b"{"))).status == 400

    with workers(2, "--receipts", "100", replicas=("--profile", "instant")) as front:
        asyncio.run(run(front))
        eventually(lambda: front.metric("skylb_requests_total") == 16, what="all are counted")
        assert front.metric("skylb_attempts_total") == 15
        assert front.metric("skylb_ttft_seconds_count") == 15
        eventually(lambda: len(front.log()) == 16, what="all are logged")
        ids = {line["request_id"] for line in front.log()}
        assert {f"r-{number}" for number in range(15)} <= ids
        for number in range(15):
            assert b'"outcome"' in get(f"{front.admin}/requests/r-{number}")
        eventually(lambda: at_rest(front), what="rest")


def test_a_client_that_leaves_gives_its_place_back() -> None:
    async def run(front: Balancer) -> None:
        async with streams(front, 4):
            await later(lambda: in_flight(front) == 4, "four are in flight")
        await later(lambda: at_rest(front), "rest")

    with workers() as front:
        asyncio.run(run(front))
        eventually(lambda: [line["status"] for line in front.log()] == [499] * 4, what="four lines")
        assert {line["error_code"] for line in front.log()} == {"client_left"}


def test_a_worker_that_is_killed_takes_its_own_streams_and_is_started_again() -> None:
    async def run(front: Balancer) -> None:
        async with streams(front, 10) as tasks:
            with frozen(front):
                await later(lambda: in_flight(front) == 10, "ten are in flight")
                await later(lambda: sum(shares(front).values()) == 10, "workers tell of all")
                before, lost = pids(front), shares(front)[1]
                os.kill(before[1], signal.SIGKILL)
                await later(lambda: in_flight(front) == 10 - lost, "its places are given back")
            answers = await asyncio.gather(*tasks)
            assert sum(map(whole, answers)) == 10 - lost
            await later(lambda: pids(front).get(1) not in {before[1], None}, "it is there again")
            assert pids(front)[2] == before[2]
        for _ in range(8):
            assert (await ask(front.port, HELLO)).status == 200
        await later(lambda: at_rest(front), "rest")
        assert front.metric("skylb_worker_requests_lost_total") == lost

    with workers() as front:
        asyncio.run(run(front))
        eventually(lambda: 'process="worker"} 1.0' in front.metrics(), what="it is counted")


async def asked_late(front: Balancer, name: str) -> tuple[Answer, float]:
    """A request while there is no engine process: its answer, and how long that took."""
    began = time.monotonic()
    answer = await ask(front.port, streaming(name, 2))
    return answer, time.monotonic() - began


def test_an_engine_process_that_is_killed_costs_no_stream_and_no_request() -> None:
    async def run(front: Balancer) -> None:
        async with streams(front, 8) as tasks:
            await later(lambda: in_flight(front) == 8, "eight are in flight")
            before = engine_pid(front)
            os.kill(before, signal.SIGKILL)
            late = await asyncio.gather(*(asked_late(front, f"late-{n}") for n in range(10)))
            await later(lambda: engine_pid_if_any(front) not in {before, None}, "another engine process")
            for answer, waited_s in late:
                if answer.status == 503:  # on a machine that takes so long to make an engine process
                    assert b"engine_away" in answer.body
                    assert waited_s >= ENGINE_PATIENCE_S
                else:
                    assert whole(answer)
            assert (await ask(front.port, HELLO)).status == 200
            going = sum(not task.done() for task in tasks)
            assert in_flight(front) >= going, "the new one counts what is under way"
            assert all(map(whole, await asyncio.gather(*tasks)))
        await later(lambda: at_rest(front), "rest")

    with workers() as front:
        asyncio.run(run(front))


def test_what_operators_have_ordered_outlives_the_engine_process() -> None:
    with workers(2, "--continue-streams") as front:
        replica = front.state()["engine"]["replicas"][0]["name"]
        name = replica.removeprefix("http://")
        order(front, "POST", f"/replicas/{name}/drain")
        order(front, "PUT", "/policy", {"policy": "round_robin"})
        order(front, "PUT", "/continuing", {"continuing": "off"})
        before = engine_pid(front)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: engine_pid_if_any(front) not in {before, None}, what="another engine process")
        eventually(lambda: answers(f"{front.admin}/ready"), what="it is ready")
        eventually(lambda: drained(front) == [replica], what="one is drained")
        assert order(front, "PUT", "/policy", {"policy": "round_robin"})["before"] == "round_robin"
        assert order(front, "PUT", "/continuing", {"continuing": "on"})["before"] == "off"


def drained(front: Balancer) -> list[str]:
    """The replicas that get nothing new."""
    return [of["name"] for of in front.state()["engine"]["replicas"] if of["draining"]]


def order(front: Balancer, method: str, path: str, body: object = None) -> dict[str, Any]:
    """What an operator orders, and the answer."""
    data = b"" if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"{front.admin}{path}", method=method, data=data)
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_an_engine_process_may_be_killed_again_and_again() -> None:
    async def run(front: Balancer) -> None:
        async with streams(front, 4, tokens=200) as tasks:
            for _ in range(3):
                before = engine_pid(front)
                os.kill(before, signal.SIGKILL)
                await later(
                    lambda before=before: engine_pid_if_any(front) not in {before, None}, "another process"
                )
                await later(lambda: answers(f"{front.admin}/ready"), "it is ready")
            assert all(map(whole, await asyncio.gather(*tasks)))
        await later(lambda: at_rest(front), "rest")

    with workers() as front:
        for _ in range(4):
            assert asyncio.run(ask(front.port, HELLO)).status == 200
        eventually(lambda: front.metric("skylb_requests_total") == 4, what="they are counted")
        asyncio.run(run(front))
        assert front.child.alive()
        assert 'skylb_process_restarts_total{process="engine"} 3.0' in front.metrics(), "it goes on"
        assert front.metric("skylb_requests_total") <= 4, "it starts at 0: only the streams have ended since"
        assert front.metric("skylb_worker_cpu_seconds_total") > 0


def test_requests_that_wait_for_room_wait_on_when_the_engine_process_is_killed() -> None:
    async def run(front: Balancer) -> None:
        async with streams(front, 1, tokens=100) as tasks:
            with frozen(front):
                held = [asyncio.create_task(ask(front.port, streaming(f"held-{n}", 2))) for n in range(5)]
                await later(lambda: front.state()["engine"]["hold"]["requests"] == 5, "five are held")
                os.kill(engine_pid(front), signal.SIGKILL)
            assert all(map(whole, await asyncio.gather(*held)))
            assert whole(await tasks[0])
        await later(lambda: at_rest(front), "rest")

    with workers(2, "--engine-in-flight-max", "1", fleet=1) as front:
        asyncio.run(run(front))


def test_the_end_waits_for_streams_at_all_workers() -> None:
    async def run(front: Balancer) -> None:
        async with streams(front, 6, tokens=60) as tasks:
            front.child.send(signal.SIGTERM)
            assert all(map(whole, await asyncio.gather(*tasks)))

    with workers() as front:
        asyncio.run(run(front))
        assert front.child.popen.wait(PATIENCE_S) == 0


def test_the_end_waits_for_a_client_of_whom_the_engine_process_has_not_heard_yet() -> None:
    """Workers report their connections twice a second; this one has been there for a moment."""

    async def run(front: Balancer) -> None:
        connection = await Connection.open(front.port)
        assert (await connection.ask(HELLO)).status == 200, "it is accepted"
        connection.writer.write(HELLO[:-5])
        front.child.send(signal.SIGTERM)
        await asyncio.sleep(1)  # a slow client
        answer = await connection.ask(HELLO[-5:])
        await connection.close()
        assert answer.status == 200, answer

    with workers(replicas=("--profile", "instant")) as front:
        asyncio.run(run(front))
        assert front.child.popen.wait(PATIENCE_S) == 0


def test_a_balancer_without_clients_ends_at_once() -> None:
    with workers(2, "--drain-timeout-s", "120", replicas=("--profile", "instant")) as front:
        front.child.send(signal.SIGTERM)
        assert front.child.popen.wait(PATIENCE_S) == 0


def test_all_processes_end_with_their_supervisor() -> None:
    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    with workers() as front:
        children = [engine_pid(front), *pids(front).values()]
        front.child.kill()
        eventually(lambda: not any(map(alive, children)), what="nobody is left")


def test_a_hang_up_reaches_all_workers(tmp_path: Path) -> None:
    with workers(replicas=("--profile", "instant")) as front:
        moved = tmp_path / "moved.jsonl"
        front.access_log.rename(moved)
        front.child.send(signal.SIGHUP)

        def logged() -> bool:
            for _ in range(8):
                assert asyncio.run(ask(front.port, HELLO)).status == 200
            return front.access_log.exists() and len(front.log()) >= 8

        eventually(logged, what="both workers write the new file")


def test_the_limits_of_a_tenant_hold_over_all_workers(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    key, _ = add_key(path, "acme", {"requests_per_minute": 5}, {})
    line = [f"Authorization: Bearer {key}"]

    async def run(front: Balancer) -> None:
        answers = [await ask(front.port, request(chat("hi"), headers=line)) for _ in range(10)]
        assert Counter(answer.status for answer in answers) == {200: 5, 429: 5}
        refused = [answer for answer in answers if answer.status == 429]
        assert all("retry-after" in answer.headers for answer in refused)
        assert (await ask(front.port, HELLO)).status == 401

    with workers(2, "--keys-file", str(path), replicas=("--profile", "instant")) as front:
        asyncio.run(run(front))


def test_children_go_on_when_signals_meant_for_the_supervisor_reach_them() -> None:
    with workers(replicas=("--profile", "instant")) as front:
        before = engine_pid(front), pids(front)
        for pid in (before[0], *before[1].values()):
            for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(pid, number)
        assert asyncio.run(ask(front.port, HELLO)).status == 200
        assert (engine_pid(front), pids(front)) == before
