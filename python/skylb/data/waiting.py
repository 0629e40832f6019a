"""How long a request waits, and what its client receives meanwhile.

Some proxies close a connection after 60 s of silence. So after a wait SkyLB begins a client's stream before
the first event: it writes a head and comments. If a replica has accepted the request, the head is that of the
replica, else SkyLB's own. A failed attempt can still be repeated elsewhere, because only comments were
written. But the status was written too, so a later refusal can only be an event. SkyLB also writes a comment
into a stream that has begun and is silent for some time.
"""

from typing import Protocol

from skylb import _core
from skylb._core import Head, Relay, Request
from skylb.config import TimeoutSettings
from skylb.data import answers
from skylb.data.context import Context
from skylb.data.continuing import may_leave
from skylb.data.crossing import SILENT_S
from skylb.data.leg import Leg
from skylb.data.phases import CONNECT, HOLD, RELAY, WAIT, Client, Phase

HELD_INTERVALS = 3
"""A stream that no replica has taken begins after so many times the interval of comments: 45 s, later
than the hold ends by default, so that a refusal out of the hold keeps its status."""

_UNBEGUN = frozenset({HOLD, CONNECT, WAIT})


class Waiting(Protocol):
    """What the rules look at: an exchange."""

    client: Client
    context: Context
    head: Head
    legs: list[Leg]
    early_relay: Relay | None
    """Set once the client's stream has begun before its first event: it has written the head."""
    phase: Phase
    phase_ns: int
    """When the phase began."""
    request: Request
    comment_ns: int
    """When SkyLB last wrote a head or a comment of its own to the client."""

    def fail(self, failure: int, *, sent: bool) -> None:
        """The attempt failed."""

    def own_headers(self) -> answers.Headers:
        """What every head of ours has."""

    def make_relay(self, *, learn: bool = True, begun: Relay | None = None) -> Relay:
        """A relay, which reads a response and writes the client's."""


def look(waiting: Waiting, now_ns: int) -> None:
    """Fails an attempt that has waited too long; begins a stream, or writes a comment, when it is time.

    Runs four times a second for each exchange.
    """
    leg = waiting.legs[-1] if waiting.legs else None
    if leg is not None and (leg.heard or leg.paused):
        leg.heard = False
        leg.heard_ns = now_ns
        if waiting.phase is RELAY and leg.forward is None and leg.moved():
            waiting.context.heard.add(leg.target.id)
    timeouts = waiting.context.limits.timeouts
    failed = failure(timeouts, waiting, now_ns)
    if failed is not None:
        waiting.fail(failed, sent=True)
    elif opens(timeouts, waiting, now_ns):
        _open(waiting, now_ns)
    elif comments(timeouts, waiting, now_ns):
        _comment(waiting, now_ns)


def _answering(waiting: Waiting) -> Leg | None:
    """The leg whose target has the request."""
    leg = waiting.legs[-1] if waiting.legs else None
    return leg if leg is not None and leg.connection is not None else None


def failure(timeouts: TimeoutSettings, waiting: Waiting, now_ns: int) -> int | None:
    """How the present attempt has failed, if it has waited too long: ``FAILURE_*``."""
    leg = _answering(waiting)
    if leg is None:
        return None
    silent_s = (now_ns - leg.heard_ns) / 1e9
    if waiting.phase is not WAIT:
        if silent_s > timeouts.stream_idle_s:
            return _core.FAILURE_TIMEOUT
        return _core.FAILURE_RESET if silent_s > SILENT_S and _is_cut_off(waiting, leg) else None
    relay = leg.relay
    if leg.forward is not None and not relay.status and silent_s > SILENT_S:
        return _core.FAILURE_RESET  # a peer says every second that it waits as well
    streams = relay.streaming if relay.status else _asks_for_stream(waiting)
    limit_s = timeouts.first_byte_s if streams else timeouts.answer_s
    # A peer has the time of its hold besides: that it still waits counts no more then.
    begin_ns = waiting.phase_ns if leg.forward is None else leg.forward.deadline_ns
    return _core.FAILURE_TIMEOUT if now_ns - begin_ns > limit_s * 1e9 else None


def _is_cut_off(waiting: Waiting, leg: Leg) -> bool:
    """The peer that serves the stream is not heard any more, and the stream could go on elsewhere."""
    return (
        leg.forward is not None
        and may_leave(waiting.request, leg)
        and leg.target.id in waiting.context.router.silent_peers()
    )


def opens(timeouts: TimeoutSettings, waiting: Waiting, now_ns: int) -> bool:
    """Whether the client's stream is to begin now, before its first event."""
    if waiting.early_relay is not None or waiting.phase not in _UNBEGUN or not _asks_for_stream(waiting):
        return False
    waited_s = (now_ns - waiting.request.start_ns) / 1e9
    interval_s = timeouts.stream_keep_alive_s
    leg = _answering(waiting)
    if leg is not None and leg.relay.accepted:
        commented = leg.relay.commented and waited_s > timeouts.stream_commit_s
        return commented or 0 < interval_s < waited_s
    if leg is not None and leg.relay.status:
        return False  # another answer is on its way
    # A peer hears every second that its request waits, and a refusal lets it try elsewhere.
    return waiting.client.claims is None and 0 < HELD_INTERVALS * interval_s < waited_s


def comments(timeouts: TimeoutSettings, waiting: Waiting, now_ns: int) -> bool:
    """Whether the client of a stream that has begun is to be sent a comment now."""
    interval_s = timeouts.stream_keep_alive_s
    if interval_s == 0 or waiting.client.paused_ns:
        return False
    if waiting.phase is RELAY:
        last_ns = max(waiting.legs[-1].heard_ns, waiting.comment_ns)
    elif waiting.early_relay is not None:
        last_ns = waiting.comment_ns
    else:
        return False
    return now_ns - last_ns > interval_s * 1e9


def _open(waiting: Waiting, now_ns: int) -> None:
    """Begins the client's stream before its first event."""
    leg = _answering(waiting)
    relay = leg.relay if leg is not None else waiting.make_relay(learn=False)
    begun = relay.open(answers.stream_head(waiting.request.request_id, waiting.own_headers()))
    if begun:
        waiting.early_relay = waiting.make_relay(learn=False, begun=relay)
        waiting.early_relay.join()
        waiting.comment_ns = now_ns
        waiting.client.transport.write(begun)


def _comment(waiting: Waiting, now_ns: int) -> None:
    """Writes a comment into a silent stream, unless an event stands open."""
    leg = _answering(waiting)
    relay = leg.relay if leg is not None else waiting.early_relay
    comment = relay.comment() if relay is not None else b""
    if comment:
        waiting.comment_ns = now_ns
        waiting.client.transport.write(comment)


def _asks_for_stream(waiting: Waiting) -> bool:
    return waiting.request.stream and not waiting.head.is_head
