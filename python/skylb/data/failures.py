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

SHUTTING_DOWN = ("shutting_down", "the balancer is shutting down")
SHORT = ("overloaded", "this balancer lacks sockets")
"""Code and message of what ends for a reason of this process."""
