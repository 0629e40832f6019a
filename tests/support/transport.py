"""A transport that keeps what is written: what tests of connections without sockets have in common."""

import asyncio
from typing import Any


class KeepingTransport(asyncio.Transport):
    """Takes what is written from the protocol only while ``takes`` is true."""

    address = ("127.0.0.1", 1)
    """Of the other side."""

    def __init__(self, *, high: int = 0) -> None:
        super().__init__()
        self.protocol: Any = None
        self.written = b""
        self.waiting = 0
        self.high = high
        self.takes = True
        self.reading = True
        self.ended = ""

    def take_all(self) -> None:
        """The other side takes what waits."""
        self.takes, self.waiting = True, 0
        self.protocol.resume_writing()

    def write(self, data: Any) -> None:
        self.written += bytes(data)
        if not self.takes:
            before, self.waiting = self.waiting, self.waiting + len(data)
            if before <= self.high < self.waiting:
                self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del low
        self.high = high or 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.address if name == "peername" else default

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def write_eof(self) -> None:
        self.ended = self.ended or "eof"
