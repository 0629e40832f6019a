"""Large bodies: read beside the loop, in their order, whoever leaves."""

import json
import threading
from typing import Any

import pytest

from skylb._core import Engine, Head, Scanned
from skylb.config import EngineSettings
from skylb.data.client import ClientConnection
from skylb.data.reading import edited, salted
from tests.support.client import CHAT, MODELS, Kept, run, settle
from tests.support.plane import until

LARGE = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 3_000_000}]}).encode()


class HeldBack:
    """A scanner that waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.scanner = Engine(EngineSettings().model_dump_json().encode(), b"k" * 16, 1).scanner()

    def scan(self, head: Head, body: bytes, *known: Any) -> Scanned:
        """Waits, then reads."""
        assert self.go.wait(30)
        return self.scanner.scan(head, body, *known)


def send_large(connection: ClientConnection, body: bytes = LARGE) -> None:
    """A large body, as it comes from a socket."""
    data = CHAT + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for at in range(0, len(data), 1 << 18):
        connection.data_received(data[at : at + (1 << 18)])


def test_a_large_body_is_read_while_the_loop_runs_on() -> None:
    async def test() -> None:
        scanner = HeldBack()
        kept = Kept(body_bytes_max=1 << 23, scanner=scanner)
        connection, transport = kept.connect()
        send_large(connection)
        other, answered = kept.connect()
        other.data_received(MODELS)
        await settle()
        assert answered.answers() == [(200, "keep-alive")]
        assert transport.written == b""
        assert kept.context.budget.bytes == len(LARGE)
        scanner.go.set()
        await until(lambda: transport.written, "an answer")
        assert transport.answers() == [(503, "keep-alive")], "there is no replica"
        assert kept.context.budget.bytes == 0
        kept.context.reading.close()

    run(test())


def test_a_large_body_that_is_refused_leaves_the_connection_as_it_is() -> None:
    async def test() -> None:
        kept = Kept(body_bytes_max=1 << 23)
        connection, transport = kept.connect()
        send_large(connection, LARGE[:-1])
        await until(lambda: transport.written, "an answer")
        connection.data_received(MODELS)
        await settle()
        assert transport.answers() == [(400, "keep-alive"), (200, "keep-alive")]
        assert kept.context.budget.bytes == 0
        kept.context.reading.close()

    run(test())


def test_a_client_may_leave_while_its_body_is_read_and_the_memory_counts_until_it_was() -> None:
    async def test() -> None:
        scanner = HeldBack()
        kept = Kept(body_bytes_max=1 << 23, scanner=scanner)
        connection, _ = kept.connect()
        send_large(connection)
        connection.eof_received()
        await settle()
        assert kept.context.budget.bytes == len(LARGE), "the thread has it"
        assert kept.router.requests_len == 0
        scanner.go.set()
        await until(lambda: kept.context.budget.bytes == 0, "given back")
        assert kept.router.requests_len == 0
        assert kept.recorder.requests()[1] == [(("/v1/chat/completions", "", "499", "client"), 1)]
        kept.context.reading.close()

    run(test())


def test_large_bodies_are_read_in_their_order() -> None:
    async def test() -> None:
        scanner = HeldBack()
        kept = Kept(body_bytes_max=1 << 23, scanner=scanner)
        order: list[int] = []
        transports = []
        for number in range(4):
            connection, transport = kept.connect()
            send_large(connection)
            write = transport.write
            transport.write = lambda data, number=number, write=write: (order.append(number), write(data))[1]  # type: ignore[method-assign,misc]
            transports.append(transport)
        scanner.go.set()
        await until(lambda: len(order) == 4, "all answers")
        assert order == [0, 1, 2, 3]
        kept.context.reading.close()

    run(test())


@pytest.mark.parametrize("at", [0, 5, 10, 15, 29, 30])
def test_what_is_put_into_a_body_in_parts_stands_where_it_should(at: int) -> None:
    parts = [b"0123456789", b"abcdefghij", b"ABCDEFGHIJ"]
    whole = b"".join(parts)
    assert b"".join(edited(parts, [(at, 0, b"<>")])) == whole[:at] + b"<>" + whole[at:]
    for gone in range(len(whole) - at):
        assert b"".join(edited(parts, [(at, gone, b"<>")])) == whole[:at] + b"<>" + whole[at + gone :]


@pytest.mark.parametrize("length", [1, 1000, 200_000])
def test_a_body_is_salted_at_each_place_and_a_large_one_is_not_copied(length: int) -> None:
    body = b"{" + b"x" * length + b"}"
    several = [(0, 1, b"a"), (length, 1, b"bb"), (length + 1, 1, b"c")]
    for edits in ([], [(1, 0, b"salt")], [(1, 1, b"")], several):
        expected, moved = body, 0
        for at, gone, text in edits:
            expected = expected[: at + moved] + text + expected[at + moved + gone :]
            moved += len(text) - gone
        parts = salted(body, edits)
        assert b"".join(parts) == expected
        assert length < 100_000 or all(isinstance(part, memoryview) or len(part) <= 4 for part in parts)
