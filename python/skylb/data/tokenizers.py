"""Of which models the text can be made tokens: whether replicas answer at ``/tokenize``.

A stream that is kept as text can be left only where ``/tokenize`` answers. A front may pass other paths only.
So that path is tried once for each model, at the replica that the first such stream is sent to.
"""

import asyncio
from collections import OrderedDict

import orjson

from skylb._core import ResponseReader
from skylb.clock import monotonic_ns
from skylb.errors import ConnectError
from skylb.types import Upstream
from skylb.upstream import Connection, Pool

MODELS_MAX = 1024
"""Models that are remembered; those that were looked at first make room."""

AGAIN_S = 10.0
"""A trial that has found nothing is repeated after this time."""

ANSWER_S = 10.0
"""An answer that takes longer is not awaited."""

_SURE_NS = -1


class Tokenizers:
    """What is known of each model."""

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: OrderedDict[str, int] = OrderedDict()
        """When a model may be tried again; ``_SURE_NS``: its replicas answer."""

    def knows(self, model: str) -> bool:
        """Replicas of this model answer."""
        return self._models.get(model) == _SURE_NS

    def is_due(self, model: str, now_ns: int) -> bool:
        """Whether a trial is to begin now; it is noted."""
        at_ns = self._models.get(model, 0)
        if at_ns == _SURE_NS or now_ns < at_ns:
            return False
        self._note(model, now_ns + int(AGAIN_S * 1e9))
        return True

    def answered(self, model: str, status: int) -> None:
        """A replica has answered at ``/tokenize`` with this status."""
        if status == 200:
            self._note(model, _SURE_NS)
        elif status in LACKS:
            self._note(model, monotonic_ns() + int(AGAIN_S * 1e9))

    def _note(self, model: str, at_ns: int) -> None:
        self._models[model] = at_ns
        if len(self._models) > MODELS_MAX:
            self._models.popitem(last=False)


LACKS = frozenset({404, 405})
"""Statuses of a replica, or of a front, that has no such path."""


def question(model: str) -> bytes:
    """The body of a trial."""
    return orjson.dumps({"model": model, "prompt": "a"})


class Trial:
    """Asks one replica: waits for a connection, and is its sink.

    Args:
        tokenizers: learn what it answers.
        model: what is asked about.
        request: the bytes to send.
    """

    __slots__ = ("_connecting", "_connection", "_ends", "_model", "_reader", "_request", "_tokenizers")

    def __init__(self, tokenizers: Tokenizers, model: str, request: bytes) -> None:
        self._tokenizers = tokenizers
        self._model = model
        self._request = request
        self._reader = ResponseReader()
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._ends: asyncio.TimerHandle | None = None

    def begin(self, pool: Pool, target: Upstream) -> None:
        """Asks over an idle connection, or a new one."""
        connection = pool.acquire(target.id)
        if connection is None:
            self._connecting = pool.connect(target, self)
        else:
            self.connected(connection)

    def connected(self, connection: Connection, /) -> None:
        """The connection is up."""
        self._connecting = None
        self._connection = connection
        connection.sink = self
        self._ends = asyncio.get_running_loop().call_later(ANSWER_S, self._end)
        connection.send(self._request)

    def connect_failed(self, error: ConnectError, /) -> None:
        """No connection came about: another stream tries again."""
        del error

    def upstream_data(self, data: bytes, /) -> None:
        """A part of the answer. Its body is of no use."""
        self._reader.feed(data)
        if self._reader.error is not None:
            self._end()
        elif self._reader.done:
            self._answered()

    def upstream_closed(self, error: Exception | None, /) -> None:
        """The replica has closed: before its answer, or at its end."""
        del error
        self._reader.eof()
        if self._reader.done:
            self._answered()
        else:
            self._end()

    def _answered(self) -> None:
        self._tokenizers.answered(self._model, self._reader.status)
        connection = self._connection
        if connection is not None and self._reader.reusable:
            self._connection = None
            connection.pool.release(connection)
        self._end()

    def _end(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.discard()
