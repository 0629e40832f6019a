"""One authenticated WebSocket to a peer: the handshake, and sealed messages both ways."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from skylb.clock import STOOD_STILL_S, monotonic_ns
from skylb.descriptors import is_shortage
from skylb.mesh.frames import (
    FRAME_BYTES_MAX,
    KINDS_OF_ALL,
    Hello,
    Kind,
    Ready,
    Session,
    encode,
    read_hello,
    read_ready,
)
from skylb.mesh.signing import Keys, Refused

PATH = "/sync"

HANDSHAKE_S = 3.0
"""For connecting and both hellos."""

SILENT_S = 2.5
"""A connection that brings nothing for so long is given up; each side sends a ping every second."""

CLOSE_S = 0.5
"""How long a peer may take to say goodbye."""

RECEIVE_BYTES_PER_S_MAX = 256 << 10
"""What one peer may send in the long run; see the table in `docs/REGIONS.md`."""

RECEIVE_BURST_BYTES = 1 << 20
"""What may come at once, from a socket's buffers for instance after this process was stopped."""

OVERHEAD_BYTES = 8
"""Header and mask of a WebSocket frame of our sizes (RFC 6455, 5.2), roughly."""

CONTROLS_MAX = 16
"""WebSocket pings and pongs between two messages; they are answered, and no part of the protocol."""

CLOSE_CODE = 4000
"""WebSocket close code under which a reason of ours stands (RFC 6455, 7.4.2)."""

OUR_READY = encode(Ready(sorted(Kind)))

Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


class Closed(Exception):  # noqa: N818 - an event that ends a loop
    """The connection is over; the text says how, in words of ours."""


class TurnedAway(Closed):
    """The peer has refused what we said."""


class Meter:
    """Bytes and messages of one peer, and what was refused from it."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "digest_bytes_in",
        "digest_bytes_out",
        "messages_in",
        "messages_out",
        "passed_over",
        "refused",
    )

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.messages_in = 0
        self.messages_out = 0
        self.digest_bytes_in = 0
        self.digest_bytes_out = 0
        """Of those bytes, the digests of hot prefixes."""
        self.refused: Counter[str] = Counter()
        """By reason; the reasons are words of the code."""
        self.passed_over = 0
        """Messages of kinds that a later version has added."""

    def sent(self, message: bytes) -> None:
        """A message goes out."""
        self.messages_out += 1
        self.bytes_out += len(message) + OVERHEAD_BYTES

    def received(self, message: bytes) -> None:
        """A message came in."""
        self.messages_in += 1
        self.bytes_in += len(message) + OVERHEAD_BYTES


async def receive(socket: Socket, timeout_s: float) -> bytes:
    """One binary message.

    Raises:
        Closed: the connection ended, or brought nothing in time.
        Refused: ``oversized``, ``flood``, or ``malformed``: text.
    """
    for _ in range(CONTROLS_MAX):
        message = await _next(socket, timeout_s)
        if message.type is aiohttp.WSMsgType.PING:
            await _answered(socket.pong(message.data))
        elif message.type is not aiohttp.WSMsgType.PONG:
            return _data(message)
    raise Refused("flood")


async def _next(socket: Socket, timeout_s: float) -> aiohttp.WSMessage:
    began_ns = monotonic_ns()
    try:
        return await socket.receive(timeout_s)
    except TimeoutError:
        if monotonic_ns() - began_ns > (timeout_s + STOOD_STILL_S) * 1e9:
            # What came while this process stood still is heard first.
            return await _next(socket, timeout_s)
        raise Closed("silent") from None
    except (ConnectionError, aiohttp.ClientError):  # while it closes
        raise Closed("closed") from None


def _data(message: aiohttp.WSMessage) -> bytes:
    if message.type is aiohttp.WSMsgType.BINARY:
        data: bytes = message.data
        return data
    if message.type is aiohttp.WSMsgType.TEXT:
        raise Refused("malformed")
    error = message.data if message.type is aiohttp.WSMsgType.ERROR else None
    if isinstance(error, aiohttp.WebSocketError) and error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
        raise Refused("oversized")
    reason = message.extra if message.type is aiohttp.WSMsgType.CLOSE else None
    if message.data == CLOSE_CODE and isinstance(reason, str) and reason.isalpha() and len(reason) <= 16:
        raise TurnedAway(f"refused by the peer: {reason}")
    raise Closed("closed")


async def _answered(sending: Awaitable[None]) -> None:
    """Waits until the peer takes what is sent.

    Raises:
        Closed: the connection is over, or it takes nothing.
    """
    try:
        async with asyncio.timeout(SILENT_S):
            await sending
    except (ConnectionError, aiohttp.ClientError):
        raise Closed("closed") from None
    except TimeoutError:
        raise Closed("it takes nothing") from None


class Connection:
    """A connection whose peer has proven that it knows the secret.

    Args:
        socket: the WebSocket.
        session: seals and opens.
        hello: what the peer said of itself.
        meter: counts.
    """

    def __init__(self, socket: Socket, session: Session, hello: Hello, meter: Meter) -> None:
        self._socket = socket
        self._session = session
        self.hello = hello
        self.kinds: set[int] = set(KINDS_OF_ALL)
        """Of frames that the peer knows, as it has said or shown."""
        self._meter = meter
        self._credit_bytes = float(RECEIVE_BURST_BYTES)
        self._credited_ns = monotonic_ns()

    async def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Seals and sends; the order of calls is the order on the wire.

        Raises:
            Closed: the connection is over.
        """
        message = self._session.seal(kind, payload)
        self._meter.sent(message)
        await _answered(self._socket.send_bytes(message))

    async def receive(self) -> tuple[int, bytes]:
        """The next message; its kind may be one of a later version.

        Raises:
            Closed: the connection is over or silent.
            Refused: the message is not what the peer sealed as its next one, or ``flood``: too much came.
        """
        message = await receive(self._socket, SILENT_S)
        self._meter.received(message)
        self._charge(len(message))
        kind, payload = self._session.open(message)
        if isinstance(kind, Kind):
            self.kinds.add(kind)
        return kind, payload

    def _charge(self, size_bytes: int) -> None:
        now_ns = monotonic_ns()
        earned_bytes = (now_ns - self._credited_ns) * RECEIVE_BYTES_PER_S_MAX / 1e9
        self._credited_ns = now_ns
        self._credit_bytes = min(RECEIVE_BURST_BYTES, self._credit_bytes + earned_bytes) - size_bytes
        if self._credit_bytes < 0:
            raise Refused("flood")

    async def close(self, reason: str = "") -> None:
        """Says why, and closes; a peer that does not answer is not waited for."""
        await close(self._socket, reason)


async def close(socket: Socket, reason: str) -> None:
    """Closes a WebSocket, with a reason of ours if there is one."""
    try:
        async with asyncio.timeout(CLOSE_S):
            code = CLOSE_CODE if reason else aiohttp.WSCloseCode.OK
            await socket.close(code=code, message=reason.encode())
    except (TimeoutError, ConnectionError, aiohttp.ClientError):
        return


async def shake(
    socket: Socket, keys: Keys, ours: Hello, meter_of: Callable[[Hello], Meter], *, dialled: bool
) -> Connection:
    """Both hellos, then both proofs; the side that dialled speaks first.

    Args:
        socket: an open WebSocket.
        keys: the shared secrets.
        ours: our hello, with a fresh nonce.
        meter_of: finds the meter of the peer that says hello; raises `Refused` for one that may not.
        dialled: whether we opened the connection.

    Raises:
        Closed: the connection ended or stalled.
        Refused: the peer is not let in.
    """
    if dialled:
        await _answered(socket.send_bytes(encode(ours)))
    said = await receive(socket, HANDSHAKE_S)
    theirs = read_hello(said)
    meter = meter_of(theirs)
    session = Session(keys, ours=ours, theirs=theirs, dialled=dialled, said=said)
    if not dialled:
        await _answered(socket.send_bytes(encode(ours)))
    connection = Connection(socket, session, theirs, meter)
    if dialled:
        await connection.send(Kind.READY, OUR_READY)
    kind, payload = await connection.receive()
    if kind is not Kind.READY:
        raise Refused("malformed")
    connection.kinds |= set(read_ready(payload).kinds)
    if not dialled:
        await connection.send(Kind.READY, OUR_READY)
    return connection


def new_client() -> aiohttp.ClientSession:
    """What peers are dialled with: it keeps nothing that they say, and goes nowhere else for it."""
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_stay)
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace])


async def _stay(*_: object) -> None:
    raise Closed("not reached: it redirects")


async def dial(
    client: aiohttp.ClientSession, url: str, tls: ssl.SSLContext
) -> aiohttp.ClientWebSocketResponse:
    """Opens the WebSocket; ``tls`` is for ``https://``.

    Raises:
        Closed: it cannot be opened.
    """
    try:
        return await client.ws_connect(
            url + PATH,
            max_msg_size=FRAME_BYTES_MAX,
            compress=0,
            autoping=False,
            ssl=tls,
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
        )
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: an address that is none
        if isinstance(error, OSError) and is_shortage(error):
            raise Closed("not dialled: this machine lacks sockets") from None
        raise Closed(f"not reached: {type(error).__name__}") from None


def server_socket() -> web.WebSocketResponse:
    """The listening side's end, not prepared yet."""
    return web.WebSocketResponse(
        max_msg_size=FRAME_BYTES_MAX, compress=False, autoping=False, timeout=CLOSE_S
    )
