"""The router of a worker, over a real line and a real engine, where no other engine process comes."""

import asyncio
import socket
from typing import Any

import pytest

from skylb import _core
from skylb._core import Recorder, Reject, RemoteEngine
from skylb.types import Address, Replica
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
