"""Large bodies are joined, scanned and hashed by one thread, first come, first served.

That takes hundreds of milliseconds for a body of 64 MiB. The event loop runs on meanwhile, because the long
parts of it release the interpreter's lock: joining bytes, the core's scan, and SHA-256.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from skylb._core import Head, RequestError, Scanned, Scanner, Tenant
from skylb.data.answers import refusal
from skylb.upstream import SMALL_BODY_BYTES

log = logging.getLogger("skylb.data.reading")

LARGE_BODY_BYTES = 256 << 10
"""Smaller bodies are read at once: about 1 ms at most."""


@dataclass(frozen=True, slots=True)
class Read:
    """A body that was read."""

    body: bytes
    """As it is sent."""
    scanned: Scanned
    digest: str | None
    """SHA-256 of the body as it is sent, in hexadecimal digits, where it was wanted."""


Done = Callable[[Read | RequestError], None]
Known = tuple[bool, str | None, Tenant, str | None, bool]
"""Whether the sender is trusted, the model meant by a body that names none, whose request it is, the most
urgent class that this tenant's requests may have, and whether its stream may go on elsewhere."""
Usage = tuple[bool, bool]
"""A stream is asked for its usage: where the client says nothing of that, and whatever the client says."""
Part = bytes | memoryview
Edit = tuple[int, int, bytes]
"""Where, how many bytes go, and what comes in their place."""


class Reading:
    """The thread.

    Args:
        scanner: of the engine that the requests are submitted to.
        hashed: the digest is wanted.
    """

    def __init__(self, scanner: Scanner, hashed: bool) -> None:
        self._scanner = scanner
        self._hashed = hashed
        self._thread = ThreadPoolExecutor(1, "skylb-read")

    def start(
        self, head: Head, parts: list[bytes], known: Known, done: Done, *, usage: Usage = (False, False)
    ) -> None:
        """Reads a body; ``done`` is called by the loop, later and in any case.

        Args:
            head: of the request.
            parts: of the body.
            known: what its reader must know besides.
            done: takes what was read.
            usage: what its stream is asked for.
        """
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._read, head, parts, known, usage)
        future.add_done_callback(partial(_deliver, done))

    def _read(self, head: Head, parts: list[bytes], known: Known, usage: Usage) -> Read | RequestError:
        body = b"".join(parts)
        try:
            scanned = self._scanner.scan(head, body, *known)
        except RequestError as error:
            return error
        edits = scanned.edits(*usage)
        if edits:
            body = b"".join(edited(parts, edits))
        digest = hashlib.sha256(body).hexdigest() if self._hashed else None
        return Read(body, scanned, digest)

    def close(self) -> None:
        """Ends the thread; bodies that wait are not read."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _deliver(done: Done, future: "asyncio.Future[Read | RequestError]") -> None:
    if future.cancelled():
        return  # the process ends, and its connections with it
    error = future.exception()
    if error is None:
        done(future.result())
    else:
        log.error("a request body could not be read", exc_info=error)
        done(refusal("internal_error", "the body could not be read"))


def salted(body: bytes, edits: Sequence[Edit]) -> Sequence[Part]:
    """The body with the salt of its owner's prefix cache, in parts: a large one is not copied."""
    if len(edits) != 1:
        return edited([memoryview(body)], edits)
    ((at, gone, text),) = edits
    whole: Part = body if len(body) <= SMALL_BODY_BYTES else memoryview(body)
    return whole[:at], text, whole[at + gone :]


def edited(parts: Sequence[Part], edits: Sequence[Edit]) -> Sequence[Part]:
    """The parts with their edits, which are given in the order of their places."""
    for at, gone, text in reversed(edits):
        parts = _replaced(parts, at, gone, text)
    return parts


def _replaced(parts: Sequence[Part], at: int, gone: int, text: bytes) -> list[Part]:
    """The parts with ``text`` for the ``gone`` bytes from ``at`` on; parts of type ``bytes`` are not long."""
    before: list[Part] = []
    behind: list[Part] = []
    position = 0
    for part in parts:
        start, position = position, position + len(part)
        if start < at:
            before.append(part[: at - start])
        if position > at + gone:
            behind.append(part[max(0, at + gone - start) :])
    return [*before, text, *behind]
