"""Reads the lists of models of the replicas that answer their probes."""

import logging
from collections import deque
from collections.abc import Callable

from skylb.clock import monotonic_ns
from skylb.control.models import BODY_BYTES_MAX, read_models
from skylb.control.pages import get_request, refusal
from skylb.errors import ShortageError, SkyLBError, UnreadableError
from skylb.router import Router
from skylb.types import Replica
from skylb.upstream import Fetch, Pool, Response

log = logging.getLogger("skylb.control.models")

OVERDUE_NS = 1_000_000_000
"""A list this late was asked for by no answered probe of ours: another balancer probes the replica for us."""

RETRY_S = 1.0
"""After a list of models that could not be read."""

LOADING = 503
"""The status of a server that is not there yet: it is sent nothing until it says what it serves."""

FAILURES_MAX = 5
"""Lists in a row that did not come, or with a failure of the server, before it counts as hidden."""

LOOKS_AT_ONCE_MAX = 32
"""Lists read side by side for requests that wait for them."""

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

    A replica whose list is refused or unreadable is sent whatever is asked for: its own 401 or 404 says
    more than a refusal of ours. One that has told its models before keeps the last list while it is not
    asked anew after an absence: requests for these models are better tried than refused.

    Args:
        replica: whose list.
        lists: how it is asked for.
        looked: called after each look, whatever it found, with whether it was answered.
    """

    __slots__ = (
        "_due_ns",
        "_ended",
        "_failures",
        "_fetch",
        "_listed",
        "_lists",
        "_looked",
        "_replica",
        "_request",
        "_stale",
        "detail",
    )

    def __init__(self, replica: Replica, lists: Lists, looked: Callable[[bool], None]) -> None:
        self._lists = lists
        self._looked = looked
        self._listed = False
        """A list could be read, and it has not been hidden since."""
        self._stale = False
        """It is another server's, perhaps."""
        self._failures = 0
        self._due_ns = 0
        self._fetch: Fetch | None = None
        self._ended: Callable[[], None] | None = None
        self.detail = ""
        """What of its models is not known, for people."""
        self.aim(replica)

    def aim(self, replica: Replica) -> None:
        """Takes over the replica as it is now: its key may have changed."""
        self._replica = replica
        self._request = get_request("/v1/models", "application/json", replica)
        self._due_ns = 0

    def hurry(self) -> None:
        """Its list is due at once."""
        self._due_ns = 0

    def renew(self) -> None:
        """Another server may be there now: its list is due at once."""
        self.hurry()
        self._stale = True

    def ask_if_due(self, now_ns: int) -> None:
        """Asks, if it is time."""
        if now_ns >= self._due_ns and self._fetch is None:
            self._ask(now_ns)

    def ask_if_overdue(self, now_ns: int) -> None:
        """Asks, if it has been time for a while."""
        self.ask_if_due(now_ns - OVERDUE_NS)

    def look(self, ended: Callable[[], None]) -> None:
        """Asks now, even if it is being asked already: that answer may be from before.

        Args:
            ended: called once the answer is there, or will not come.
        """
        self.cancel()
        self._ended = ended
        self._ask(monotonic_ns())

    def cancel(self) -> None:
        """Gives up what is under way."""
        if self._fetch is not None:
            self._fetch.cancel()
            self._fetch = None
        self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

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
        if isinstance(result, ShortageError):
            self._due_ns = min(self._due_ns, monotonic_ns() + int(RETRY_S * 1e9))  # it was not asked
        elif not isinstance(result, Response):
            why = str(result).removeprefix(f"{self._replica.name}: ")
            self._unlisted(why, lasting=isinstance(result, UnreadableError))
        elif result.status != 200:
            lasting = result.status < 500 or result.status == 501
            loading = result.status == LOADING
            self._unlisted(
                refusal("/v1/models", result.status, self._replica), lasting=lasting, loading=loading
            )
        else:
            self._read(result.body)
        self._looked(isinstance(result, Response))
        self._end()

    def _read(self, body: bytes) -> None:
        try:
            listing = read_models(body)
        except ValueError as error:
            self._unlisted(f"/v1/models cannot be read: {error}", lasting=True)
            return
        self._stale = False
        self._failures = 0
        self._listed = True
        replica = self._replica
        if self._lists.router.set_models(replica.id, listing.models, cut=listing.over > 0):
            log.info("replica %s serves %s", replica.name, _described(listing.models))
        detail = f"models left out: {listing.left_out}" if listing.left_out else ""
        if detail and detail != self.detail:
            log.warning("replica %s: %s", replica.name, detail)
        self.detail = detail

    def _unlisted(self, why: str, *, lasting: bool, loading: bool = False) -> None:
        """Its list could not be read; ``lasting``: its answer will be the same in a moment."""
        self._failures = 0 if loading else self._failures + 1
        hidden = (not self._listed or self._stale) and (lasting or self._failures >= FAILURES_MAX)
        if hidden:
            self._listed = False
            self._lists.router.hide_models(self._replica.id)
        else:
            self._due_ns = min(self._due_ns, monotonic_ns() + int(RETRY_S * 1e9))
        so = "it gets requests for any model" if hidden else "its last list counts"
        if not self._listed and not hidden:
            so = "it gets no requests yet"
        detail = f"its models are not known, {so}: {why}"
        if detail != self.detail:
            self.detail = detail
            log.warning("replica %s: %s", self._replica.name, detail)


class Look:
    """One reading of many lists, a few at a time.

    Args:
        lists: those that are read.
        done: called once, when all have been read or could not be.
    """

    def __init__(self, lists: list[ModelList], done: Callable[[], None]) -> None:
        self._lists = deque(lists)
        self._left = len(lists)
        self._done: Callable[[], None] | None = done
        if not lists:
            done()
        for _ in range(LOOKS_AT_ONCE_MAX):
            self._next()

    def stop(self) -> None:
        """Reads no further list, and calls nobody."""
        self._lists.clear()
        self._done = None

    def _next(self) -> None:
        if self._lists:
            self._lists.popleft().look(self._ended)

    def _ended(self) -> None:
        self._left -= 1
        if self._left == 0 and self._done is not None:
            self._done()
        self._next()


def _described(models: list[tuple[str, int | None]]) -> str:
    shown = [f"{name} (up to {length} tokens)" if length else name for name, length in models[:SHOWN_MAX]]
    more = [f"and {len(models) - SHOWN_MAX} more"] if len(models) > SHOWN_MAX else []
    return ", ".join(shown + more) or "no model"
