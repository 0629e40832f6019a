"""Sends single requests and keeps the books; when each one goes out is `skylb.tools.load.drive`'s affair."""

import asyncio
import itertools
import ssl
from collections.abc import Iterator

import msgspec

from skylb.clock import monotonic_ns
from skylb.tools.load.client import Exchange, request_head
from skylb.tools.load.messages import Message, Renderer
from skylb.tools.load.settings import ANY_REGION, LoadSettings
from skylb.tools.load.stats import Tally
from skylb.tools.load.turn import Turn
from skylb.types import Replica
from skylb.upstream import Pool

NEVER_NS = 1 << 62


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = True


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """The request's JSON. ``user`` is the key by which a ring keeps a user's requests together."""

    model: str
    max_tokens: int
    user: str
    temperature: float
    ignore_eos: bool
    stream: bool
    messages: list[Message] | None = None
    prompt: str | None = None
    stream_options: _StreamOptions | None = None


_USAGE = _StreamOptions()
_encoder = msgspec.json.Encoder()


class Sender:
    """Requests in flight, and a tally per region.

    Args:
        settings: of the load.
        renderer: what requests say.
        targets: resolved targets by region.
        model: to ask for.
        key: API key.
        tls: for https targets.
    """

    def __init__(
        self,
        settings: LoadSettings,
        renderer: Renderer,
        targets: dict[str, list[Replica]],
        *,
        model: str,
        key: str | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.settings = settings
        self.tallies: dict[str, Tally] = {}
        self.measure_from_ns = 0
        self.measure_until_ns = NEVER_NS
        self.pool = Pool(
            idle_len_max=settings.in_flight_max, idle_s=4.0, connect_timeout_s=settings.connect_s, tls=tls
        )
        self._renderer = renderer
        self._targets: dict[str, Iterator[Replica]] = {
            region: itertools.cycle(replicas) for region, replicas in targets.items()
        }
        self._model = model
        self._authorization = {"Authorization": f"Bearer {key}"} if key else {}
        self._path = "/v1/chat/completions" if settings.endpoint == "chat" else "/v1/completions"
        self._in_flight: set[_Request] = set()

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._in_flight)

    def tally(self, region: str) -> Tally:
        """One region's figures."""
        found = self.tallies.get(region)
        if found is None:
            found = self.tallies[region] = Tally()
        return found

    def total(self) -> Tally:
        """All regions' figures together; where there is one region, its own."""
        if len(self.tallies) == 1:
            return next(iter(self.tallies.values()))
        total = Tally()
        for tally in self.tallies.values():
            total.merge(tally)
        return total

    def send(self, turn: Turn) -> "asyncio.Future[bool]":
        """Sends one request; the future tells, at its end, whether it was answered."""
        tally = self.tally(turn.region)
        request = _Request(self, turn, tally)
        replica = next(self._targets.get(turn.region) or self._targets[ANY_REGION])
        body = self._body(turn)
        head = request_head(self._path, replica.authority, len(body), self._headers(turn))
        exchange = Exchange(
            self.pool,
            replica,
            head + body,
            request,
            stream=self.settings.stream,
            body_bytes_max=self.settings.response_bytes_max,
        )
        request.exchange = exchange
        self._in_flight.add(request)
        tally.begun += 1
        tally.in_flight += 1
        exchange.start()
        request.measured = exchange.start_ns >= self.measure_from_ns
        tally.warmup += not request.measured
        return request.answered

    def retarget(self, region: str, replica: Replica) -> None:
        """Sends a region's further requests to another place."""
        self._targets[region] = itertools.cycle([replica])

    def refuse(self, turn: Turn) -> None:
        """Counts a request that cannot be sent because too many are in flight."""
        tally = self.tally(turn.region)
        tally.begun += 1
        tally.fail("client_limit", f"{self.in_flight} requests in flight")

    async def idle(self) -> None:
        """Waits until nothing is in flight."""
        while self._in_flight:
            await asyncio.wait([request.answered for request in self._in_flight])

    def sweep(self) -> None:
        """Fails requests that were silent too long, closes old connections. A few times a second."""
        limit_ns = monotonic_ns() - int(self.settings.silence_s * 1e9)
        for request in [request for request in self._in_flight if request.exchange.touched_ns < limit_ns]:
            request.exchange.fail("silent", f"no byte for {self.settings.silence_s:g} s")
        self.pool.sweep()

    async def close(self) -> None:
        """Cuts off what is in flight (unfinished, not failed) and closes all connections."""
        for request in list(self._in_flight):
            request.cut = True
            request.exchange.fail("unfinished", "cut off by the end of the run")
        await self.pool.close()

    def finished(self, request: "_Request", now_ns: int) -> None:
        """Books a request that has ended."""
        self._in_flight.discard(request)
        exchange, tally = request.exchange, request.tally
        tally.in_flight -= 1
        tally.stale += exchange.stale
        if exchange.kind is None:
            tally.ok += 1
            self._book(request, now_ns)
        elif request.cut:
            tally.unfinished += 1
        else:
            tally.fail(exchange.kind, exchange.message)
        if not request.answered.done():
            request.answered.set_result(exchange.kind is None)

    def _book(self, request: "_Request", now_ns: int) -> None:
        exchange, tally = request.exchange, request.tally
        usage = exchange.usage
        in_window = self.measure_from_ns <= now_ns < self.measure_until_ns
        tally.window_ok += in_window
        if usage is None:
            tally.usage_missing += 1
        else:
            tally.prompt_mismatches += usage.prompt_tokens != request.turn.in_tokens
            for tokens in [tally.measured] * request.measured + [tally.window] * in_window:
                tokens.prompt += usage.prompt_tokens
                tokens.cached += usage.cached_tokens
                tokens.completion += usage.completion_tokens
        if request.measured:
            tally.e2e.add((now_ns - exchange.start_ns) / 1e9)
            if usage is not None and exchange.first_ns and usage.completion_tokens > 1:
                tally.tpot.add((exchange.last_ns - exchange.first_ns) / 1e9 / (usage.completion_tokens - 1))

    def _headers(self, turn: Turn) -> dict[str, str]:
        name = self.settings.session_header
        return self._authorization | {name: f"session-{turn.session}"} if name else self._authorization

    def _body(self, turn: Turn) -> bytes:
        settings = self.settings
        chat = settings.endpoint == "chat"
        return _encoder.encode(
            _Body(
                model=self._model,
                max_tokens=max(1, turn.out_tokens),
                user=f"user-{turn.user}",
                temperature=0.0,
                ignore_eos=True,
                stream=settings.stream,
                messages=self._renderer.messages(turn) if chat else None,
                prompt=None if chat else self._renderer.prompt(turn),
                stream_options=_USAGE if settings.stream else None,
            )
        )


class _Request:
    """One request's entry in the books."""

    __slots__ = ("_sender", "answered", "cut", "exchange", "measured", "tally", "turn")

    exchange: Exchange

    def __init__(self, sender: Sender, turn: Turn, tally: Tally) -> None:
        self._sender = sender
        self.turn = turn
        self.tally = tally
        self.measured = False
        self.cut = False
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def content(self, exchange: Exchange, now_ns: int, /) -> None:
        """Times a content event."""
        if not self.measured:
            return
        if exchange.last_ns:
            self.tally.itl.add((now_ns - exchange.last_ns) / 1e9)
        else:
            self.tally.ttft.add((now_ns - exchange.start_ns) / 1e9)

    def ended(self, _exchange: Exchange, now_ns: int, /) -> None:
        """Hands the request to the books."""
        self._sender.finished(self, now_ns)
