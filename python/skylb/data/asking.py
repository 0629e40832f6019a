"""What a replica is asked before it goes on with a stream: the text of the last tokens, or the ids of all.

An event may have several tokens, and the last of them may end within a character, whose text the engine has
withheld. A replica that went on behind such a token would tell the rest of the character along with all that
is before. So it is asked for the text first (`/detokenize`). Of a stream whose engine sends no ids, it is
asked for those of the prompt and then of the answer (`/tokenize`). The request follows over the same
connection.
"""

from typing import Protocol

from skylb import _core
from skylb._core import Relay, Request, ResponseReader
from skylb.clock import monotonic_ns
from skylb.data import giveup
from skylb.data.context import Context
from skylb.data.continuing import end, prepare
from skylb.data.failures import failure_of
from skylb.data.heads import Sending, head_for
from skylb.data.leg import Leg
from skylb.data.phases import WAIT, Phase
from skylb.data.tokenizers import LACKS
from skylb.upstream import Connection

ANSWER_BYTES_MAX = 16 << 20
"""A longer answer is not read: a token of a prompt takes 12 bytes of it at most."""

_CUT = ("upstream_reset", "the replica closed before its answer was complete")


class Asking(giveup.Ongoing, Sending, Protocol):
    """A request whose stream is to go on at a replica that has been chosen."""

    body: bytes
    body_digest: str | None
    charged: int
    context: Context
    early_relay: Relay | None
    phase: Phase
    phase_ns: int
    request: Request

    def connect(self, leg: Leg) -> None:
        """Opens another connection."""

    def make_relay(self, *, learn: bool = True, begun: Relay | None = None) -> Relay:
        """A relay."""

    def send(self, leg: Leg, connection: Connection) -> None:
        """Sends the request."""

    def complete(
        self, outcome: int, status: int, code: str | None, *, relay: Relay | None, close: bool
    ) -> None:
        """Ends the exchange."""


def ask(asking: Asking, leg: Leg, connection: Connection) -> bool:
    """Asks the replica, if there is something to ask; `Asking.send` follows."""
    relay = asking.early_relay
    question = relay.question(asking.request.model or "") if relay is not None and relay.keeps else None
    if relay is None or question is None:
        return False
    path, body = question
    asking.phase = WAIT
    asking.phase_ns = leg.heard_ns = monotonic_ns()
    leg.relay = asking.make_relay(learn=False, begun=relay)
    leg.relay.join()  # the client's stream takes comments meanwhile
    leg.connection = connection
    connection.sink = Question(asking, leg, connection, relay)
    connection.send(head_for(asking, leg, body, len(body), path), body)
    return True


class Question:
    """The sink of the connection while the replica is asked.

    Args:
        asking: the exchange.
        leg: its leg at the replica.
        connection: to the replica.
        relay: of the stream: it asks.
    """

    __slots__ = ("_asking", "_body", "_connection", "_heard", "_leg", "_reader", "_relay")

    def __init__(self, asking: Asking, leg: Leg, connection: Connection, relay: Relay) -> None:
        self._asking = asking
        self._leg = leg
        self._connection = connection
        self._relay = relay
        self._reader = ResponseReader()
        self._body = bytearray()
        self._heard = False

    def upstream_data(self, data: bytes, /) -> None:
        """A part of the answer."""
        self._heard = self._leg.heard = True
        self._body += self._reader.feed(data)
        if self._reader.error is not None or len(self._body) > ANSWER_BYTES_MAX:
            self._asking.fail(_core.FAILURE_BAD_RESPONSE, sent=True)
        elif self._reader.done:
            self._answered()

    def upstream_closed(self, error: Exception | None, /) -> None:
        """The replica closed the connection: before its answer, or at its end."""
        del error
        self._reader.eof()
        if self._reader.done:
            self._answered()
        elif self._connection.reused and not self._heard:
            self._leg.discard()
            self._asking.connect(self._leg)  # closed before the replica read the question
        else:
            self._asking.fail(_core.FAILURE_RESET, sent=True)

    def _answered(self) -> None:
        """The answer is whole. One that another replica may give better fails the attempt."""
        asking, leg, connection = self._asking, self._leg, self._connection
        status = self._reader.status
        context = asking.context
        keyed = leg.target.authorization is not None or context.tenants.keyring is not None
        failure = failure_of(status, asking.request, context.router, keyed=keyed)
        if failure is not None:
            asking.fail(failure, sent=True, status=status)
            return
        if self._relay.lacks_ids:
            context.tokenizers.answered(asking.request.model or "", status)
            if status in LACKS:
                asking.fail(_core.FAILURE_LIMITED, sent=True)  # no mark against it: another has the path
                return
        if not self._relay.replied(status, bytes(self._body)):
            asking.fail(_core.FAILURE_BAD_RESPONSE, sent=True)
            return
        refusal = prepare(asking, self._relay)
        if refusal == "length" and self._relay.fill():
            leg.discard()
            end(asking, self._relay)
        elif refusal is not None:
            asking.request.not_continued(refusal)
            giveup.give_up(asking, *_CUT)
        elif self._reader.reusable:
            connection.sink = None
            leg.connection = None
            asking.send(leg, connection)
        else:
            leg.discard()
            asking.connect(leg)
