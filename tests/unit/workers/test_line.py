"""One end of a line: what is written early, a side that does not read, and the end."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from skylb.workers import line as lines
from skylb.workers.line import CHOKED, Line


def run(scenario: Callable[[Line, socket.socket, list[str]], object]) -> list[str]:
    """Why the line has ended, each time that it was said."""

    async def main() -> list[str]:
        ended: list[str] = []
        line = Line(lambda line, data: None, lambda line, why: ended.append(why))
        ours, theirs = socket.socketpair()
        with theirs:
            line.write(b"early ")
            await line.open(ours.detach())
            found = scenario(line, theirs, ended)
            assert found is None
            for _ in range(3):
                await asyncio.sleep(0)
        return ended

    return asyncio.run(main())


def test_what_was_written_before_goes_out_first() -> None:
    def scenario(line: Line, theirs: socket.socket, ended: list[str]) -> None:
        line.write(b"late")
        assert theirs.recv(100) == b"early late"
        assert ended == []

    run(scenario)


def test_a_line_whose_other_side_does_not_read_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES_MAX", 1 << 20)

    def scenario(line: Line, theirs: socket.socket, ended: list[str]) -> None:
        del theirs
        for _ in range(64):
            line.write(bytes(1 << 18))
        assert ended == [CHOKED]
        line.write(b"more")

    assert run(scenario) == [CHOKED], "once"


def test_a_line_that_is_not_open_yet_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES_MAX", 100)

    async def main() -> None:
        ended: list[str] = []
        line = Line(lambda line, data: None, lambda line, why: ended.append(why))
        line.write(bytes(101))
        assert ended == [CHOKED]
        ours, theirs = socket.socketpair()
        with theirs:
            await line.open(ours.detach())
            assert theirs.recv(1) == b"", "it is closed at once"

    asyncio.run(main())


def test_the_end_of_the_other_side_is_said_and_an_end_of_ours_is_not() -> None:
    def leaves(line: Line, theirs: socket.socket, ended: list[str]) -> None:
        del line, ended
        theirs.shutdown(socket.SHUT_RDWR)

    def aborts(line: Line, theirs: socket.socket, ended: list[str]) -> None:
        del theirs, ended
        line.abort()

    assert run(leaves) == [""]
    assert run(aborts) == []
