"""Pooled connections to replicas and peers: one `asyncio.Protocol` each, reused last in, first out.

Shared by the data plane, the probes and the load generator. A connection has at most one sink, the
object that receives the response; bytes that arrive while it has none close it.
"""

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple, Protocol

from skylb._core import ResponseReader
from skylb.clock import monotonic_ns
from skylb.descriptors import Shortage, is_shortage
from skylb.errors import (
    ConnectError,
    ShortageError,
    UnreadableError,
    UpstreamClosedError,
    UpstreamTimeoutError,
)
from skylb.listeners import FAR_DEAD_S, NEAR_DEAD_S, notice_dead_paths
from skylb.tasks import TaskGroup
from skylb.types import Address, Replica, Upstream

RECEIVE_BUFFER_BYTES = 32 << 10
"""`SO_RCVBUF` of a replica's socket: bounds what a stuck reader keeps in the kernel (PROMISES.md, R4)."""


SHORT_RETRY_S = 0.05
"""Before a connection is tried again for which this machine lacked something."""

SMALL_BODY_BYTES = 64 << 10
"""Up to here head and body are joined into one write; a larger body is sent as it is."""

TLS_PIECE_BYTES = 256 << 10
"""A larger body is encrypted in such pieces, one per turn of the loop."""


class Sink(Protocol):
    """Receives one response."""

    def upstream_data(self, data: bytes, /) -> None:
        """Bytes arrived."""

    def upstream_closed(self, error: Exception | None, /) -> None:
        """The replica closed (``None``: with FIN) or the connection broke. Called at most once."""


class Waiter(Protocol):
    """Waits for a connection."""

    def connected(self, connection: "Connection", /) -> None:
        """The connection is up and has no sink yet."""

    def connect_failed(self, error: ConnectError, /) -> None:
        """It could not be made within the time allowed."""


class Connection(asyncio.Protocol):
    """One connection to a replica."""

    __slots__ = ("_stopped", "idle_since_ns", "pool", "reused", "sink", "transport", "unsent", "upstream_id")

    def __init__(self, pool: "Pool", upstream_id: int) -> None:
        self.pool = pool
        self.upstream_id = upstream_id
        self.sink: Sink | None = None
        self.reused = False
        self.idle_since_ns = 0
        self.transport: asyncio.Transport
        self.unsent: list[memoryview] = []
        """What of the request is not written yet: no part of it is empty."""
        self._stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = transport  # type: ignore[assignment]  # stream servers hand a Transport, typeshed the base

    def send(self, head: bytes, *body: bytes | memoryview) -> None:
        """Writes a request, whose body comes in parts.

        A plain socket takes what it can of a large body; TLS would encrypt all of it at once.
        """
        length = sum(map(len, body))
        if length <= SMALL_BODY_BYTES:
            self.transport.write(b"".join((head, *body)))
            return
        self.transport.write(head)
        if length <= TLS_PIECE_BYTES or self.transport.get_extra_info("ssl_object") is None:
            for part in body:
                self.transport.write(part)
        else:
            self.unsent.extend(memoryview(part) for part in body if part)
            self._send_on()

    def _send_on(self) -> None:
        if self._stopped or self.transport.is_closing():
            return
        part = self.unsent.pop(0)
        self.transport.write(part[:TLS_PIECE_BYTES])
        if len(part) > TLS_PIECE_BYTES:
            self.unsent.insert(0, part[TLS_PIECE_BYTES:])
        if self.unsent and not self._stopped:
            asyncio.get_running_loop().call_soon(self._send_on)

    def pause_writing(self) -> None:
        """The other side does not take what was written."""
        self._stopped = True

    def resume_writing(self) -> None:
        """It takes bytes again."""
        self._stopped = False
        if self.unsent:
            self._send_on()

    def data_received(self, data: bytes) -> None:
        """Hands response bytes to the sink."""
        sink = self.sink
        if sink is None:
            self.discard()
        else:
            sink.upstream_data(data)

    def eof_received(self) -> None:
        """The replica closed its side; so do we."""
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._ended(exc)

    def _ended(self, error: Exception | None) -> None:
        self.pool.forget_idle(self)
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.upstream_closed(error)

    def discard(self) -> None:
        """Closes at once, unsent bytes included. The sink is not notified."""
        self.sink = None
        self.unsent.clear()
        self.pool.forget_idle(self)
        self.transport.abort()


class Pool:
    """Idle connections per replica or peer, bounded in number and age.

    Args:
        idle_len_max: idle connections kept per replica or peer.
        idle_s: how long one may stay idle; below the 5 s after which vLLM closes.
        connect_timeout_s: time for TCP and TLS handshakes together.
        tls: context for replicas that speak TLS.
        receive_buffer_bytes: `SO_RCVBUF` of the sockets.
        far: the other ends are balancers behind long paths, which can die without a word.
    """

    def __init__(
        self,
        *,
        idle_len_max: int = 256,
        idle_s: float = 4.0,
        connect_timeout_s: float = 1.5,
        tls: ssl.SSLContext | None = None,
        receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES,
        far: bool = False,
    ) -> None:
        self._idle: dict[int, deque[Connection]] = {}
        self._idle_len_max = idle_len_max
        self._idle_ns = int(idle_s * 1e9)
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls
        self._receive_buffer_bytes = receive_buffer_bytes
        self._far = far
        self._connects = TaskGroup()
        self.shortage = Shortage()
        """Counts what this machine lacked for connections; siblings have the same."""

    def sibling(
        self,
        *,
        idle_len_max: int,
        receive_buffer_bytes: int,
        idle_s: float | None = None,
        far: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> "Pool":
        """A pool of its own connections, with the same TLS context and the same times unless given."""
        pool = Pool(
            idle_len_max=idle_len_max,
            idle_s=self._idle_ns / 1e9 if idle_s is None else idle_s,
            connect_timeout_s=self._connect_timeout_s,
            tls=tls or self._tls,
            receive_buffer_bytes=receive_buffer_bytes,
            far=far,
        )
        pool.shortage = self.shortage
        return pool

    def acquire(self, upstream_id: int) -> Connection | None:
        """The connection that became idle last, or ``None``."""
        idle = self._idle.get(upstream_id)
        if not idle:
            return None
        connection = idle.pop()
        if monotonic_ns() - connection.idle_since_ns > self._idle_ns:
            idle.append(connection)
            return None  # the youngest is too old: the sweep closes them all
        connection.reused = True
        return connection

    def release(self, connection: Connection) -> None:
        """Takes back a connection whose last exchange ended cleanly on both sides."""
        connection.sink = None
        if connection.transport.is_closing():
            return
        if connection.unsent:
            connection.discard()  # answered early: the next request would get into this one's body
            return
        connection.idle_since_ns = monotonic_ns()
        idle = self._idle.get(connection.upstream_id)
        if idle is None:
            idle = self._idle[connection.upstream_id] = deque()
        idle.append(connection)
        if len(idle) > self._idle_len_max:
            idle.popleft().transport.close()

    def forget_idle(self, connection: Connection) -> None:
        """Drops a connection that ended while it was idle."""
        if connection.sink is None:
            idle = self._idle.get(connection.upstream_id)
            if idle and connection in idle:
                idle.remove(connection)

    def connect(self, upstream: Upstream, waiter: Waiter, *, patience_s: float = 0.0) -> asyncio.Task[None]:
        """Opens a connection and notifies the waiter. Cancel the task to give up.

        Args:
            upstream: where to.
            waiter: is notified.
            patience_s: how long to try again where this machine lacks something.
        """
        connect = self._connect(upstream, waiter, patience_s)
        return self._connects.start(connect, name=f"connect {upstream.name}")

    async def _connect(self, upstream: Upstream, waiter: Waiter, patience_s: float) -> None:
        try:
            connection = await self._open_in_time(upstream)
            while connection is None and patience_s > 0:
                patience_s -= SHORT_RETRY_S
                await asyncio.sleep(SHORT_RETRY_S)
                connection = self.acquire(upstream.id) or await self._open_in_time(upstream)
        except OSError as error:  # a time-out is one
            waiter.connect_failed(_connect_error(upstream.name, error))
            return
        if connection is None:
            waiter.connect_failed(ShortageError(f"{upstream.name}: not tried: this machine lacks sockets"))
        else:
            waiter.connected(connection)

    async def _open_in_time(self, upstream: Upstream) -> Connection | None:
        """A new connection; ``None`` where this machine lacks something."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                return await self.open(upstream)
        except OSError as error:
            if not is_shortage(error):
                raise
            self.shortage.noted("connect", error)
            return None

    def give_back(self) -> None:
        """Closes some idle connections, the oldest of each replica or peer."""
        for idle in list(self._idle.values()):
            if idle:
                idle.popleft().transport.close()

    async def open(self, upstream: Upstream) -> Connection:
        """A new connection: the one place that knows sockets.

        Raises:
            OSError: none came about.
        """
        address = upstream.address
        loop = asyncio.get_running_loop()
        tls = self._tls if address.tls else None
        name = (address.server_name or address.host) if address.tls else None
        sock = _socket(address, self._receive_buffer_bytes)
        with ExitStack() as undo:
            undo.callback(sock.close)
            notice_dead_paths(sock, FAR_DEAD_S if self._far else NEAR_DEAD_S)
            await loop.sock_connect(sock, address.host if address.unix else (address.host, address.port))
            _, connection = await loop.create_connection(
                lambda: Connection(self, upstream.id), sock=sock, ssl=tls, server_hostname=name
            )
            undo.pop_all()
        return connection

    def sweep(self) -> None:
        """Closes connections that were idle too long. Called every 250 ms."""
        limit_ns = monotonic_ns() - self._idle_ns
        for upstream_id, idle in list(self._idle.items()):
            while idle and idle[0].idle_since_ns < limit_ns:
                idle.popleft().transport.close()
            if not idle:
                del self._idle[upstream_id]  # it may have left the fleet

    def forget(self, upstream_id: int) -> None:
        """The replica left the fleet: closes its idle connections."""
        for connection in self._idle.pop(upstream_id, ()):
            connection.transport.close()

    def idle_len_of(self, upstream_id: int) -> int:
        """Idle connections to one replica or peer."""
        return len(self._idle.get(upstream_id, ()))

    @property
    def idle_len(self) -> int:
        """Idle connections, all together."""
        return sum(map(len, self._idle.values()))

    async def close(self) -> None:
        """Gives up connects under way and closes idle connections."""
        await self._connects.stop()
        for upstream_id in list(self._idle):
            self.forget(upstream_id)


def _connect_error(name: str, error: OSError) -> ConnectError:
    # A Unix socket whose backlog is full answers EAGAIN: somebody is there.
    late = isinstance(error, TimeoutError) or error.errno == errno.EAGAIN
    return ConnectError(f"{name}: {str(error) or 'timed out'}", refused=not late)


def _socket(address: Address, receive_buffer_bytes: int) -> socket.socket:
    inet = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(socket.AF_UNIX if address.unix else inet, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    if not address.unix:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Response(NamedTuple):
    """A whole response: status and body, framing removed."""

    status: int
    body: bytes
    reader: ResponseReader | None = None
    """What read it, for what its head says."""

    @property
    def date(self) -> str | None:
        """Its ``Date``."""
        return None if self.reader is None else self.reader.header("date")


Failed = ConnectError | UpstreamClosedError | UpstreamTimeoutError | UnreadableError
Done = Callable[[Response | Failed], None]


class Fetch:
    """One small request whose whole response is collected: probes, model lists.

    Args:
        pool: where the connection comes from and goes back to.
        replica: the one to ask.
        request: the request's bytes, head and body.
        timeout_s: for everything, the connect included. ``None``: the owner calls `time_out` when it is
            time; a timer for each of 1,000 probes a second costs a tenth of their time.
        body_bytes_max: a longer body is an error.
        done: called once, with the response or a typed error.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_body_bytes_max",
        "_connect",
        "_connection",
        "_done",
        "_pool",
        "_reader",
        "_replica",
        "_request",
        "_timer",
    )

    def __init__(
        self,
        pool: Pool,
        replica: Replica,
        request: bytes,
        *,
        timeout_s: float | None,
        body_bytes_max: int,
        done: Done,
    ) -> None:
        self._pool = pool
        self._replica = replica
        self._request = request
        self._body_bytes_max = body_bytes_max
        self._done: Done | None = done
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._reader = ResponseReader()
        self._connect: asyncio.Task[None] | None = None
        self._connection = pool.acquire(replica.id)
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s is not None:
            self._timer = asyncio.get_running_loop().call_later(timeout_s, self.time_out)
        if self._connection is None:
            self._connect = pool.connect(replica, self)
        else:
            self._send(self._connection)

    def cancel(self) -> None:
        """Gives up; ``done`` is not called."""
        self._done = None
        self._end()

    def connected(self, connection: Connection, /) -> None:
        """Sends the request over a new connection."""
        self._connect = None
        self._connection = connection
        self._send(connection)

    def connect_failed(self, error: ConnectError, /) -> None:
        """The replica is not reachable."""
        self._connect = None
        self._finish(error)

    def _send(self, connection: Connection) -> None:
        connection.sink = self
        connection.transport.write(self._request)

    def upstream_data(self, data: bytes, /) -> None:
        """Collects the body."""
        reader = self._reader
        body = reader.feed(data)
        if body:
            self._body.append(body)
            self._body_bytes += len(body)
        if reader.done:
            self._succeed()
        elif reader.error is not None:
            self._finish(UnreadableError(f"{self._replica.name}: {reader.error}"))
        elif self._body_bytes > self._body_bytes_max:
            self._finish(UnreadableError(f"{self._replica.name}: body over {self._body_bytes_max} bytes"))

    def upstream_closed(self, error: Exception | None, /) -> None:
        """Ends a close-delimited body, repeats on a stale connection, or fails."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.reused and not self._reader.status:
            self._connect = self._pool.connect(self._replica, self)
            return
        self._reader.eof()
        if self._reader.done:
            self._succeed()
        else:
            self._finish(UpstreamClosedError(f"{self._replica.name}: {str(error or '') or 'closed early'}"))

    def _succeed(self) -> None:
        connection, body = self._connection, self._body
        if connection is not None and self._reader.reusable:
            self._connection = None
            self._pool.release(connection)
        whole = body[0] if len(body) == 1 else b"".join(body)
        self._finish(Response(self._reader.status, whole, self._reader))

    def time_out(self) -> None:
        """Its time is over: ends with an error, unless it has ended."""
        name = self._replica.name
        if self._connection is None:
            self._finish(ConnectError(f"{name}: timed out"))
        else:
            self._finish(UpstreamTimeoutError(f"{name}: no answer in time"))

    def _finish(self, result: Response | Failed) -> None:
        done, self._done = self._done, None
        self._end()
        if done is not None:
            done(result)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        connect, self._connect = self._connect, None
        if connect is not None and not connect.done():
            connect.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.discard()
