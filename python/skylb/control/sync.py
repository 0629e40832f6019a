"""One authenticated WebSocket to a peer: the handshake, and sealed messages both ways."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable

import aiohttp
from aiohttp import web

from skylb.clock import STOOD_STILL_S, monotonic_ns
from skylb.control.frames import FRAME_BYTES_MAX, Hello, Kind, Session, encode, read_hello
from skylb.descriptors import is_shortage
from skylb.signing import Keys, Refused

PATH = "/sync"

HANDSHAKE_S = 3.0
"""For connecting and both hellos."""

SILENT_S = 2.5
"""A connection that brings nothing for so long is given up; each side sends a ping every second."""

CLOSE_S = 0.5
"""How long a peer may take to say goodbye."""

RECEIVE_BYTES_PER_S_MAX = 128 << 10
"""What one peer may send in the long run; the engine tells at most 48 KiB/s, pings and news add little."""

RECEIVE_BURST_BYTES = 1 << 20
"""What may come at once, from a socket's buffers for instance after this process was stopped."""

OVERHEAD_BYTES = 8
"""Header and mask of a WebSocket frame of our sizes (RFC 6455, 5.2), roughly."""

CLOSE_CODE = 4000
"""WebSocket close code under which a reason of ours stands (RFC 6455, 7.4.2)."""

Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


class Closed(Exception):  # noqa: N818 - an event that ends a loop
    """The connection is over; the text says how, in words of ours."""


class Meter:
    """Bytes and messages of one peer, and what was refused from it."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "digest_bytes_in",
        "digest_bytes_out",
        "messages_in",
        "messages_out",
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
        Refused: ``oversized``, or ``malformed``: text.
    """
    began_ns = monotonic_ns()
    try:
        message = await socket.receive(timeout_s)
    except TimeoutError:
        if monotonic_ns() - began_ns > (timeout_s + STOOD_STILL_S) * 1e9:
            # What came while this process stood still is heard first.
            return await receive(socket, timeout_s)
        raise Closed("silent") from None
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
        raise Closed(f"refused by the peer: {reason}")
    raise Closed("closed")


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
        try:
            await self._socket.send_bytes(message)
        except (ConnectionError, aiohttp.ClientError):
            raise Closed("closed") from None

    async def receive(self) -> tuple[Kind, bytes]:
        """The next message.

        Raises:
            Closed: the connection is over or silent.
            Refused: the message is not what the peer sealed as its next one, or ``flood``: too much came.
        """
        message = await receive(self._socket, SILENT_S)
        self._meter.received(message)
        self._charge(len(message))
        return self._session.open(message)

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
    except (TimeoutError, ConnectionError):
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
        await _send(socket, encode(ours))
    theirs = read_hello(await receive(socket, HANDSHAKE_S))
    meter = meter_of(theirs)
    session = Session(keys, ours=ours, theirs=theirs, dialled=dialled)
    if not dialled:
        await _send(socket, encode(ours))
    connection = Connection(socket, session, theirs, meter)
    if dialled:
        await connection.send(Kind.READY)
    kind, _ = await connection.receive()
    if kind is not Kind.READY:
        raise Refused("malformed")
    if not dialled:
        await connection.send(Kind.READY)
    return connection


async def _send(socket: Socket, data: bytes) -> None:
    try:
        await socket.send_bytes(data)
    except (ConnectionError, aiohttp.ClientError):
        raise Closed("closed") from None


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
            ssl=tls,
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
        )
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, OSError) and is_shortage(error):
            raise Closed("not dialled: this machine lacks sockets") from None
        raise Closed(f"not reached: {type(error).__name__}") from None


def server_socket() -> web.WebSocketResponse:
    """The listening side's end, not prepared yet."""
    return web.WebSocketResponse(max_msg_size=FRAME_BYTES_MAX, compress=False, timeout=CLOSE_S)
