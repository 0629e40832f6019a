"""Lists of models, asked of replicas that answer their probes."""

import logging
from collections.abc import Callable

from skylb.clock import monotonic_ns
from skylb.control.models import BODY_BYTES_MAX, Listing, read_models
from skylb.control.pages import get_request
from skylb.errors import SkyLBError
from skylb.router import Router
from skylb.types import Replica
from skylb.upstream import Fetch, Pool, Response

log = logging.getLogger("skylb.control.models")

OVERDUE_NS = 1_000_000_000
"""A list this late was asked for by no answered probe of ours: another balancer probes the replica for us."""

RETRY_S = 1.0
"""After a list of models that could not be read."""

SHOWN_MAX = 8
"""Models that a line in the log names."""


class Lists:
    """How lists are asked for, and where they go.

    Args:
        router: takes the lists.
        pool: connections for them.
        timeout_s: for one list, the connect included.
        interval_s: time between two readings of a replica's list.
    """

    def __init__(self, router: Router, pool: Pool, *, timeout_s: float, interval_s: float) -> None:
        self.router = router
        self.pool = pool
        self.timeout_s = timeout_s
        self.interval_ns = int(interval_s * 1e9)


class ModelList:
    """The list of one replica.

    Args:
        replica: whose list.
        lists: how it is asked for.
        looked: called after each look, whatever it found, with whether it was answered.
    """

    __slots__ = ("_due_ns", "_failure", "_fetch", "_listing", "_lists", "_looked", "_replica", "_request")

    def __init__(self, replica: Replica, lists: Lists, looked: Callable[[bool], None]) -> None:
        self._lists = lists
        self._looked = looked
        self._listing: Listing | None = None
        self._failure = ""
        self._due_ns = 0
        self._fetch: Fetch | None = None
        self.aim(replica)

    def aim(self, replica: Replica) -> None:
        """Takes over the replica as it is now: its key may have changed."""
        self._replica = replica
        self._request = get_request("/v1/models", "application/json", replica)

    def renew(self) -> None:
        """Another server may be there now: its list is due at once."""
        self._due_ns = 0

    def ask_if_due(self, now_ns: int) -> None:
        """Asks, if it is time."""
        if now_ns >= self._due_ns and self._fetch is None:
            self._ask(now_ns)

    def ask_if_overdue(self, now_ns: int) -> None:
        """Asks, if it has been time for a while."""
        self.ask_if_due(now_ns - OVERDUE_NS)

    def cancel(self) -> None:
        """Gives up what is under way."""
        if self._fetch is not None:
            self._fetch.cancel()
            self._fetch = None

    def _ask(self, now_ns: int) -> None:
        lists = self._lists
        self._due_ns = now_ns + lists.interval_ns
        self._fetch = Fetch(
            lists.pool,
            self._replica,
            self._request,
            timeout_s=lists.timeout_s,
            body_bytes_max=BODY_BYTES_MAX,
            done=self._answered,
        )

    def _answered(self, result: Response | SkyLBError) -> None:
        self._fetch = None
        if not isinstance(result, Response):
            self._unlisted(str(result).removeprefix(f"{self._replica.name}: "))
        elif result.status != 200:
            self._unlisted(f"/v1/models answers {result.status}")
        else:
            self._read(result.body)
        self._looked(isinstance(result, Response))

    def _read(self, body: bytes) -> None:
        try:
            listing = read_models(body)
        except ValueError as error:
            self._unlisted(str(error))
            return
        self._failure = ""
        if listing != self._listing:
            self._listing = listing
            log.info("replica %s serves %s", self._replica.name, _described(listing.models))
            if listing.left_out:
                log.warning("replica %s: of its models are left out %s", self._replica.name, listing.left_out)
            self._lists.router.set_models(self._replica.id, listing.models)

    def _unlisted(self, why: str) -> None:
        # The last list stays: requests for these models are better tried than refused.
        self._due_ns = min(self._due_ns, monotonic_ns() + int(RETRY_S * 1e9))
        if why != self._failure:
            self._failure = why
            log.warning("replica %s: its models cannot be read: %s", self._replica.name, why)


def _described(models: list[tuple[str, int | None]]) -> str:
    shown = [f"{name} (up to {length} tokens)" if length else name for name, length in models[:SHOWN_MAX]]
    more = [f"and {len(models) - SHOWN_MAX} more"] if len(models) > SHOWN_MAX else []
    return ", ".join(shown + more) or "no model"
