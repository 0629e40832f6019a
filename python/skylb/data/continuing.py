"""Streams that go on at another replica: when the one that answers breaks, stalls, or has to be left.

The relay keeps the ids of the tokens that the client has, or its text. `go_on` asks the engine for another
place, and the request is sent there as one for what is missing (`Request.continued`). Until that replica's
first event, the relay of the last leg stands for the client's stream, as one does that was begun early
(`Exchange.early_relay`). It writes comments, and at last an error event if no replica goes on.
"""

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skylb import _core
from skylb._core import Recorder, Relay, Request
from skylb.clock import monotonic_ns
from skylb.data.context import Context
from skylb.data.heads import Sending, head_for
from skylb.data.leg import Leg
from skylb.data.phases import PLACE, Client, Phase
from skylb.data.tokenizers import Trial, question


class Streaming(Sending, Protocol):
    """A request whose stream has begun, as far as it can go on elsewhere."""

    body: bytes
    charged: int
    comment_ns: int
    early_relay: Relay | None
    in_engine: bool
    legs: list[Leg]
    phase: Phase
    phase_ns: int

    def complete(
        self, outcome: int, status: int, code: str | None, *, relay: Relay | None, close: bool
    ) -> None:
        """Ends the exchange."""


def attach(streaming: Streaming, relay: Relay) -> None:
    """A leg begins whose answer goes on with a stream that has begun."""
    before = streaming.early_relay
    if relay.keeps and relay.lacks_ids:
        _try(streaming)
    if before is None:
        return
    if before.keeps:
        relay.go_on(before)
        streaming.early_relay = relay
    else:
        relay.join()


def _try(streaming: Streaming) -> None:
    """Asks the replica of a stream that is kept as text for tokens, unless one of its model has answered."""
    model = streaming.request.model or ""
    tokenizers = streaming.context.tokenizers
    if tokenizers.is_due(model, monotonic_ns()):
        leg = streaming.legs[-1]
        body = question(model)
        head = head_for(streaming, leg, body, len(body), "/tokenize")
        Trial(tokenizers, model, head + body).begin(leg.pool, leg.target)


def go_on(streaming: Streaming, leg: Leg, failure: int, status: int) -> bool:
    """Continues a stream whose leg is given up.

    Returns:
        Whether the client needs nothing more: its stream goes on, or only its end was missing and is written.
    """
    relay = leg.relay
    if not streaming.in_engine:
        return False
    if not relay.keeps:
        reason = streaming.request.refusal
        if reason is not None:
            streaming.request.not_continued(reason)
        return False
    if end(streaming, relay):
        return True
    refusal = prepare(streaming, relay)
    if refusal is not None:
        streaming.request.not_continued(refusal)
        return False
    relay.suspend()
    streaming.early_relay = relay
    streaming.phase = PLACE
    streaming.phase_ns = streaming.comment_ns = now_ns = monotonic_ns()
    streaming.context.router.resume(streaming.request, relay, failure, now_ns=now_ns, status=status)
    return True


class Ending(Protocol):
    """A request whose stream may lack its end only."""

    client: Client

    def complete(
        self, outcome: int, status: int, code: str | None, *, relay: Relay | None, close: bool
    ) -> None:
        """Ends the exchange."""


def end(ending: Ending, relay: Relay) -> bool:
    """Writes the end of a stream that lacks nothing else; whether it does."""
    rest = relay.finish()
    if rest is None:
        return False
    ending.client.transport.write(rest)
    ending.complete(_core.OUTCOME_OK, relay.status, None, relay=relay, close=relay.close_client)
    return True


def may_leave(request: Request, leg: Leg) -> bool:
    """Whether the stream could go on elsewhere now, from where it is."""
    return leg.relay.keeps and leg.relay.refusal is None and request.refusal is None


def may_be_left(context: Context, request: Request, leg: Leg) -> bool:
    """Whether the stream may be withdrawn while it is sound: it is known that it can go on elsewhere."""
    known = not leg.relay.lacks_ids or context.tokenizers.knows(request.model or "")
    return known and may_leave(request, leg)


def wait(streaming: Streaming) -> None:
    """A leg failed before it went on with its stream: another one may."""
    relay = streaming.early_relay
    if relay is not None and relay.keeps:
        relay.suspend()


def gave_up(streaming: Streaming) -> None:
    """The engine finds no replica that goes on."""
    relay = streaming.early_relay
    if relay is not None and relay.keeps:
        streaming.request.not_continued("no_place")


class Prepared(Protocol):
    """What the body for the replica that goes on is kept in."""

    body: bytes
    body_digest: str | None
    charged: int
    context: Context
    request: Request


def prepare(streaming: Prepared, relay: Relay) -> str | None:
    """Makes the body for the replica that goes on, once its ids are known; why there is none."""
    refusal = relay.refusal or streaming.request.refusal
    if refusal is not None or relay.lacks_ids:
        return refusal
    body = streaming.request.continued(relay)
    if body is None:
        return "length"
    budget = streaming.context.budget
    budget.give(streaming.charged)
    streaming.charged = 0
    if not budget.take(len(body)):
        return "memory"
    streaming.charged = len(body)
    streaming.body = body
    streaming.body_digest = None
    return None


def families(recorder: Recorder, kept_bytes: int) -> Iterator[Metric]:
    """What became of streams that broke, and the memory of what is kept of streams (``kept_bytes``)."""
    continued = CounterMetricFamily(
        "skylb_streams_continued",
        "Times that a stream which broke or was left went on at another replica.",
        labels=("cause",),
    )
    for cause, count in recorder.continued():
        continued.add_metric((cause,), count)
    ended = CounterMetricFamily(
        "skylb_streams_not_continued",
        "Streams that broke and did not go on at another replica.",
        labels=("reason",),
    )
    for reason, count in recorder.not_continued():
        ended.add_metric((reason,), count)
    yield from (continued, ended)
    text = "Ids of tokens, and texts, kept so that streams can go on elsewhere."
    yield GaugeMetricFamily("skylb_kept_bytes", text, value=kept_bytes)
