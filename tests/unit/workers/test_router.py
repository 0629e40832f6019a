"""The router of a worker, over a real line and a real engine, where no other engine process comes."""

import asyncio
import socket
from typing import Any

import pytest

from skylb import _core
from skylb._core import Recorder, Reject, RemoteEngine
from skylb.types import Address, Replica
from skylb.workers import line as lines
from skylb.workers import protocol
from skylb.workers import router as module
from skylb.workers.line import Line
from skylb.workers.protocol import View
from skylb.workers.router import RemoteRouter
from tests.support.core import head, request
from tests.unit.test_remote import SECRET, body, engine_process

URL = "http://a"
VIEW = View(
    ready=True,
    leaves=False,
    only_model="m",
    policy="predictive",
    continuing=True,
    identity=("us", 1),
    replicas=[Replica(1, URL, Address("127.0.0.1", 1), "a")],
    peers=[],
    silent_peers=[],
)


class Sink:
    """Notes what becomes of a request."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def __getattr__(self, name: str) -> Any:
        return lambda *of: self.said.put_nowait((name, of[0] if of else None))


def test_what_fails_when_no_engine_process_has_come_in_time_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)

    async def run() -> None:
        worker = RemoteEngine(SECRET, 64, 1_000, False)
        recorder = Recorder(_core.LOG_OFF, 1, "predictive", 0)
        router = RemoteRouter(worker, recorder, retry_after_s=1, changed=lambda _: None)
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        line = Line(lambda _, data: router.receive(data), lambda *_: None)
        await line.open(ours.detach())
        router.attach(line)
        engine = engine_process([URL])
        engine.tell_worker(1, protocol.encode(VIEW))
        sinks = [Sink(), Sink()]
        requests = [request(head(length=len(body())), start_ns=3) for _ in sinks]
        for sink, asked in zip(sinks, requests, strict=True):
            router.submit(sink, asked, body())
        with theirs:
            mail = await asyncio.get_running_loop().sock_recv(theirs, 65536)
            engine.serve(1, mail, recorder, 4)
            router.receive(engine.take_mail(1))
            for sink in sinks:
                assert [(await sink.said.get())[0] for _ in range(2)] == ["submitted", "pushed"]
            router.detach()
            router.retry(requests[0], _core.FAILURE_RESET, sent=True, now_ns=5)
            for number, sink in enumerate(sinks):
                if number:  # this one fails when nobody is waited for any more
                    router.retry(requests[1], _core.FAILURE_RESET, sent=True, now_ns=6)
                async with asyncio.timeout(30):
                    name, reject = await sink.said.get()
                assert name == "rejected"
                assert isinstance(reject, Reject)
                assert reject.code == "engine_away"
            assert router.requests_len == 0
            await line.close()

    asyncio.run(run())


def test_any_amount_of_kept_requests_goes_out_as_the_engine_process_reads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES_MAX", 256 << 10)
    monkeypatch.setattr(lines, "BUFFER_BYTES", 4096)
    monkeypatch.setattr(module, "PORTION_BYTES", 4096)
    count, ended = 150, []

    async def run() -> None:
        worker = RemoteEngine(SECRET, 64, 1_000, False)
        recorder = Recorder(_core.LOG_OFF, 1, "predictive", 0)
        router = RemoteRouter(worker, recorder, retry_after_s=1, changed=lambda _: None)
        for number in range(count):
            asked = body(messages=[{"role": "user", "content": f"{number} " * 20_000}])
            router.submit(Sink(), request(head(length=len(asked)), start_ns=number), asked)
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        line = Line(lambda *_: None, lambda _, why: ended.append(why), router.drained)
        router.attach(line)
        await line.open(ours.detach())
        engine = engine_process([URL])
        loop = asyncio.get_running_loop()
        with theirs:
            received = 0
            async with asyncio.timeout(60):
                while engine.requests_len < count:
                    mail = await loop.sock_recv(theirs, 65536)
                    assert mail, "the line has ended"
                    received += len(mail)
                    _, _, fault = engine.serve(1, mail, recorder, 4)
                    assert fault is None
            assert received > lines.LINE_BYTES_MAX
            await line.close()

    asyncio.run(run())
    assert ended == []


def test_a_request_that_fails_takes_no_other_decision_of_the_same_read_along() -> None:
    class Failing(Sink):
        def submitted(self) -> None:
            raise RuntimeError("no")

    async def run() -> None:
        worker = RemoteEngine(SECRET, 64, 1_000, False)
        recorder = Recorder(_core.LOG_OFF, 1, "predictive", 0)
        router = RemoteRouter(worker, recorder, retry_after_s=1, changed=lambda _: None)
        worker.joined()
        sinks = [Failing(), Sink()]
        for sink in sinks:
            router.submit(sink, request(head(length=len(body())), start_ns=3), body())
        engine = engine_process([URL])
        engine.tell_worker(1, protocol.encode(VIEW))
        engine.serve(1, worker.take_mail(recorder), recorder, 4)
        with pytest.raises(ExceptionGroup) as found:
            router.receive(engine.take_mail(1))
        assert [str(error) for error in found.value.exceptions] == ["no"]
        assert [sink.said.get_nowait()[0] for sink in sinks] == ["pushed", "submitted"]
        assert sinks[1].said.get_nowait()[0] == "pushed"

    asyncio.run(run())
