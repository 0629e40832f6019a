"""The failures of an attempt: their names in metrics, their codes and messages in answers."""

import logging
from http import HTTPStatus

from skylb import _core
from skylb._core import Relay, Request
from skylb.router import RequestRouter

log = logging.getLogger("skylb.data")

KEY_REFUSALS_NS = 60_000_000_000
"""Between two lines in the log about a key that replicas refuse."""

FAILURES = {
    _core.FAILURE_CONNECT: ("connect", "upstream_connect", "the replica could not be reached"),
    _core.FAILURE_RESET: ("reset", "upstream_reset", "the replica closed before its answer was complete"),
    _core.FAILURE_TIMEOUT: ("timeout", "upstream_timeout", "the replica stopped answering"),
    _core.FAILURE_FULL: ("full", "upstream_full", "the replica's queue is full"),
    _core.FAILURE_LIMITED: ("limited", "upstream_limited", "the replica takes no more requests now"),
    _core.FAILURE_WITHDRAWN: ("withdrawn", "upstream_timeout", "the replica stopped answering"),
    _core.FAILURE_STATUS: ("status", "upstream_error", "the replica failed"),
    _core.FAILURE_BAD_RESPONSE: (
        "bad_response",
        "upstream_bad_response",
        "the replica's answer was malformed",
    ),
    _core.FAILURE_ABSENT: ("absent", "model_not_found", "the replica has no such model"),
    _core.FAILURE_UNAUTHORIZED: (
        "unauthorized",
        "upstream_unauthorized",
        "the replica does not accept the key of this balancer",
    ),
    _core.FAILURE_REFUSED: ("refused", "upstream_refused", "the peer refused the request"),
}
"""Failure -> outcome of the attempt in metrics, code and message for an answer cut short."""

_STATUSES = {
    429: _core.FAILURE_LIMITED,
    503: _core.FAILURE_FULL,
    504: _core.FAILURE_TIMEOUT,
}


def failure_of(status: int, request: Request, router: RequestRouter, *, keyed: bool) -> int | None:
    """The failure, ``FAILURE_*``, that an answer with this status is; ``None``: it is an answer.

    401 where the client's key does not reach replicas (``keyed``) is about a key of ours, or that there is
    none, and says nothing to the client. To the client's own key it is its answer.

    404 from a replica that is not known to have the model is not the last word while another may have it.

    501 says that the engine cannot do what was asked, which another one cannot either. 504 is a front's
    word that the time is over: what may still be running is not run a second time. With 429 and 503
    nothing was begun.
    """
    if status == HTTPStatus.UNAUTHORIZED and keyed:
        return _core.FAILURE_UNAUTHORIZED
    if status == 404 and router.guessed(request):
        return _core.FAILURE_ABSENT
    plain = _core.FAILURE_STATUS if status >= 500 and status != 501 else None
    return _STATUSES.get(status, plain)


def is_for_client(relay: Relay) -> bool:
    """Whether a failed answer is passed on when nobody else can serve: it says what is wrong.

    An answer "full" (503) is, where it says when to come back, as ours does. A peer's refusal is not, and
    neither is a 401, which is a failure only where the key was ours.
    """
    if relay.refused is not None or relay.verdict == HTTPStatus.UNAUTHORIZED:
        return False
    return relay.verdict != 503 or relay.retry_after_s is not None


class KeyRefusals:
    """Tells in the log, now and then, that a replica refuses the key of this balancer."""

    __slots__ = ("_count", "_last_ns")

    def __init__(self) -> None:
        self._count = 0
        self._last_ns: int | None = None

    def noted(self, replica: str, now_ns: int, *, given: bool) -> None:
        """A replica has refused it; ``given``: it got one."""
        self._count += 1
        if self._last_ns is None or now_ns - self._last_ns >= KEY_REFUSALS_NS:
            log.warning(
                "replica %s answers 401 %s (refused so far: %d)",
                replica,
                "to the key of replica_key_file" if given else "without a key: replica_key_file gives one",
                self._count,
            )
            self._last_ns = now_ns


SHUTTING_DOWN = ("shutting_down", "the balancer is shutting down")
SHORT = ("overloaded", "this balancer lacks sockets")
"""Code and message of what ends for a reason of this process."""
