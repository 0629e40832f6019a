"""The file descriptors of this process: how many there may be, and how they are divided.

Nothing here belongs to one part. Every socket and file of the process comes out of one number
(``RLIMIT_NOFILE``, getrlimit(2)). The part that takes the last one leaves the others without.
"""

import errno
import logging
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skylb.clock import monotonic_ns
from skylb.errors import ConfigError

log = logging.getLogger("skylb.descriptors")

SHORTAGES = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.ENOSR}
)
"""What `connect` and `accept` answer where this machine is short: of descriptors, memory, or ports to dial
from. None of it says anything of the other side."""

KEPT_RATIO = 8
"""One part of so many is kept back for probes, peers' state, the admin listener, logs and names."""

KEPT_MIN = 16
KEPT_MAX = 1024

PEERS_RATIO = 8
"""Of what is left, peers' connections may be one part of so many."""

TOLD_S = 10.0
"""Between two lines of the log about a shortage."""

DOINGS = ("accept", "connect")
"""What descriptors, ports or memory may be lacking for."""

WHOSE = ("clients", "peers")

FEW = 1024
"""So many connections of clients are too few to be silent about."""

STANDARD_LEN = 3
"""Standard input, output and error."""

closed_streams: set[str] = set()
"""Those of ``stdin``, ``stdout`` and ``stderr`` that this process was started without."""


def hold_standard() -> None:
    """Opens those of the descriptors 0 to 2 that are closed.

    Otherwise sockets get these numbers: what is printed and logged goes to a client or a replica, and the
    event loop, which never closes them, aborts the process.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < STANDARD_LEN:
        os.set_inheritable(number, True)
    os.close(number)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            closed_streams.add(name)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - open to the end


def raise_limit() -> tuple[int, int]:
    """Raises the soft limit to the hard one; both as they were before the call, and are now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft, soft  # an unlimited hard limit may be above what the kernel allows (fs.nr_open)
    return soft, hard if hard != resource.RLIM_INFINITY else sys.maxsize


def open_len() -> int:
    """Descriptors that are open now."""
    return len(list(Path("/proc/self/fd").iterdir()))


@dataclass(frozen=True, slots=True)
class Allotment:
    """Who may have how many connections.

    Every connection of a client or a peer may need one more, to where its request goes.
    """

    limit: int
    """Descriptors of the process."""
    kept: int
    """Kept back for all that is no request."""
    connections: list[int]
    """Of clients and, where there are any, of peers."""

    @classmethod
    def of(cls, limit: int, used: int, most: list[int]) -> "Allotment":
        """Divides what there is.

        Args:
            limit: descriptors that the process may have.
            used: of those, taken already.
            most: connections that the settings allow: of clients and, where there are any, of peers.
        """
        kept = min(max(limit // KEPT_RATIO, KEPT_MIN), KEPT_MAX)
        room = max(0, limit - used - kept)
        peers = [min(peers_max, room // PEERS_RATIO) for peers_max in most[1:]]
        return cls(limit, kept, [min(most[0], room // 2 - sum(peers)), *peers])

    def tell(self, before: int, most: list[int]) -> None:
        """Says in the log what became of the settings.

        Raises:
            ConfigError: nobody could connect.
        """
        if not min(self.connections):
            raise ConfigError(
                [f"{self.limit} open files are allowed: expected more (ulimit -n, LimitNOFILE=)"]
            )
        short = self.connections != most
        log.log(
            logging.WARNING if self.connections[0] < min(most[0], FEW) else logging.INFO,
            "%d descriptors (%d at the start), %d kept back; connections at most: %s%s",
            self.limit,
            before,
            self.kept,
            ", ".join(f"{count} of {whose}" for whose, count in zip(WHOSE, self.connections, strict=False)),
            f"; the settings allow {', '.join(map(str, most))}" if short else "",
        )


class Shortage:
    """What this process was short of: counted, said once in a while, and answered by giving back.

    Args:
        give_back: closes what can be done without.
    """

    def __init__(self, give_back: Callable[[], None] = lambda: None) -> None:
        self.give_back = give_back
        self.total: Counter[str] = Counter()
        """By what could not be done: words of the code."""
        self._told_ns: int | None = None

    def noted(self, doing: str, error: OSError) -> None:
        """Something could not be had.

        Args:
            doing: what for, one of `DOINGS`.
            error: what the kernel said.
        """
        self.total[doing] += 1
        now_ns = monotonic_ns()
        if self._told_ns is None or now_ns - self._told_ns >= TOLD_S * 1e9:
            self._told_ns = now_ns
            log.warning(
                "%s: %s: this process is short of it, no replica is to blame; idle connections are closed "
                "(%d times so far)",
                doing,
                error.strerror or error,
                self.total.total(),
            )
        self.give_back()


def is_shortage(error: OSError) -> bool:
    """Whether an error is this machine's own."""
    return error.errno in SHORTAGES
