"""What failed attempts are called, in metrics and in answers."""

from skylb import _core

FAILURES = {
    _core.FAILURE_CONNECT: ("connect", "upstream_connect", "the replica could not be reached"),
    _core.FAILURE_RESET: ("reset", "upstream_reset", "the replica closed before its answer was complete"),
    _core.FAILURE_TIMEOUT: ("timeout", "upstream_timeout", "the replica stopped answering"),
    _core.FAILURE_FULL: ("full", "upstream_full", "the replica's queue is full"),
    _core.FAILURE_STATUS: ("status", "upstream_error", "the replica failed"),
    _core.FAILURE_BAD_RESPONSE: (
        "bad_response",
        "upstream_bad_response",
        "the replica's answer was malformed",
    ),
    _core.FAILURE_REFUSED: ("refused", "upstream_refused", "the peer refused the request"),
}
"""Failure -> outcome of the attempt in metrics, code and message for an answer cut short."""

_STATUSES = {503: _core.FAILURE_FULL, 504: _core.FAILURE_TIMEOUT}


def failure_of(status: int) -> int | None:
    """The failure, ``FAILURE_*``, that an answer with this status is; ``None``: it is an answer.

    501 says that the engine cannot do what was asked, which another one cannot either. 504 is a front's
    word that the time is over: what may still be running is not run a second time.
    """
    return None if status < 500 or status == 501 else _STATUSES.get(status, _core.FAILURE_STATUS)


SHUTTING_DOWN = ("shutting_down", "the balancer is shutting down")
SHORT = ("overloaded", "this balancer lacks sockets")
"""Code and message of what ends for a reason of this process."""
