"""Keeps the EndpointSlices of a namespace as the API server has them: list, watch, and what can go wrong.

A list gives everything and its version; a watch gives what changed since, and a newer version. A watch that
ends or breaks is resumed from the last version. After 410 everything is listed anew ("Efficient detection of
changes" among the API's concepts). Whatever fails, what is known stays.

An empty list counts: a Service may have been scaled to nothing. A list is what etcd has, so a server that
has just started, or has lost etcd, answers with an error, not with nothing.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from skylb.clock import monotonic_ns
from skylb.discovery.kubernetes.api import GONE, UNAUTHORIZED, Api, AwayError, RefusedError, said
from skylb.discovery.kubernetes.slices import (
    SLICES_MAX,
    Slice,
    read_event,
    read_list,
    read_slice,
    read_status,
)
from skylb.errors import ConfigError, UnreadableError
from skylb.tasks import attempt

log = logging.getLogger("skylb.discovery.kubernetes")

WATCH_S = 30
"""After so long, give or take a fifth, the server ends a watch, and a new one begins. What a broken
connection hides is found out after that; a bookmark comes 2 s before the end."""

SILENCE_S = 10.0
"""A watch that has not ended so long after its time is given up."""

WATCH_S_MIN = 1.0
"""Between the beginnings of two watches, whatever the server does."""

BACK_OFF_S = 0.5
BACK_OFF_S_MAX = 10.0
"""Between two attempts while they fail: from the first of these, twice as long each time, to the second."""

PAGES_MAX = SLICES_MAX
"""Of one list. A page may hold less than was asked for, and then names the next one."""

AWAY = "away"
UNREADABLE = "unreadable"

MENDED = frozenset({AWAY, str(UNAUTHORIZED)})
"""Kinds of failure that a second attempt usually mends: a cut connection, a token that ended."""

PATIENCE_FAILURES = 2
"""Failures of these kinds in a row before they are told."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which slices are followed, and what they list: ``replicas`` or ``peers``."""

    noun: str
    namespace: str
    selector: str

    def __str__(self) -> str:
        """For the log."""
        return f"{self.noun} in namespace {self.namespace}"


class Watcher:
    """Follows the slices that a selector matches.

    Args:
        api: whom to ask; it is open.
        place: which slices.
        take: gets all slices after each change.
        passed: set once the API server was asked, whatever came of it.
        uniform: draws between two numbers, so that many balancers do not ask at once.
    """

    def __init__(
        self,
        api: Api,
        place: Place,
        take: Callable[[Sequence[Slice]], None],
        passed: asyncio.Event,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._api = api
        self._place = place
        self._take = take
        self._uniform = uniform
        self._slices: dict[str, Slice] = {}
        self._left_out = 0
        self._version: str | None = None
        self._failures = 0
        self._wanted = asyncio.Event()
        self._kind = ""
        self.failure: str | None = None
        """Why nothing is known now, or may be out of date."""
        self._is_heard = False
        self.seen_ns = monotonic_ns()
        """When the API server was last heard; at first, when this began."""
        self._passed = passed

    def look(self) -> None:
        """Asks at once, if it is waiting to ask again."""
        self._wanted.set()

    async def run(self) -> None:
        """Follows until cancelled."""
        while True:
            await attempt(self._follow(), name=f"following {self._place}")
            self._version = None  # it failed in a way that is not known
            await self._wait(BACK_OFF_S_MAX)

    async def _follow(self) -> None:
        while True:
            pause_s = await self._step()
            self._passed.set()
            if pause_s > 0:
                await self._wait(pause_s)

    async def _wait(self, pause_s: float) -> None:
        self._wanted.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wanted.wait()

    async def _step(self) -> float:
        """Lists or watches once; how long to wait before the next step, in seconds."""
        try:
            if self._version is None:
                await self._list()
                return 0.0
            return await self._watch(self._version)
        except RefusedError as error:
            return await self._refused(error)
        except AwayError as error:
            self._failed(AWAY, str(error))
        except UnreadableError as error:
            self._version = None
            self._failed(UNREADABLE, f"{self._api.host} answers what is no list of slices: {error}")
        return self._back_off_s()

    async def _refused(self, error: RefusedError) -> float:
        if error.status == GONE:
            self._version = None
            self._failures += 1  # a list is no cure where every watch ends so
            return 0.0 if self._failures == 1 else self._back_off_s()
        if error.status == UNAUTHORIZED:
            # A token ends, and the next one stands in its file.
            try:
                await self._api.renew()
            except (AwayError, ConfigError) as broken:
                self._failed(str(UNAUTHORIZED), str(broken))
                return self._back_off_s()
        self._failed(str(error.status), str(error))
        return max(self._back_off_s(), error.retry_after_s)

    # ------------------------------------------------------------------------ list and watch

    async def _list(self) -> None:
        found: dict[str, Slice] = {}
        token: str | None = None
        for _ in range(PAGES_MAX):
            page = read_list(await self._api.page(self._place.namespace, self._place.selector, token))
            found.update((one.metadata.name, one) for one in page.items or ())
            token = page.metadata.continue_
            if not token or len(found) > SLICES_MAX:
                break
        else:
            raise UnreadableError(f"a list of more than {PAGES_MAX} pages")
        self._bound(found)
        self._slices = found
        self._version = page.metadata.resource_version
        self._heard()
        self._take(list(found.values()))

    async def _watch(self, version: str) -> float:
        began_ns = monotonic_ns()
        watch_s = round(WATCH_S * self._uniform(0.8, 1.2))
        place, limit_s = self._place, watch_s + SILENCE_S
        accepted, events_len = False, 0
        try:
            asked = self._api.watch(
                place.namespace, place.selector, version, watch_s=watch_s, limit_s=limit_s
            )
            async with asked as events:
                accepted = True
                self._heard()
                async for lines in events:
                    self._events(lines)
                    events_len += len(lines)
                    self._heard()
                    self._failures = 0
        finally:
            if accepted and not events_len:
                # A healthy server sends a bookmark before the end. One that says nothing may have been asked
                # for a version that it does not have yet: it would be silent for ever.
                self._version = None
        # A server that ends each watch at once is not asked without a pause.
        return WATCH_S_MIN * self._uniform(0.8, 1.2) - (monotonic_ns() - began_ns) / 1e9

    def _events(self, lines: Sequence[bytes]) -> None:
        """Takes events that came together; those before one that is no good count."""
        changed = False
        try:
            for line in lines:
                changed = self._event(line) or changed
        finally:
            if changed:
                self._take(list(self._slices.values()))

    def _event(self, line: bytes) -> bool:
        """Takes one event; whether it changed a slice.

        Raises:
            RefusedError: it is an error.
            UnreadableError: it is no event.
        """
        event = read_event(line)
        if event.type == "ERROR":
            status = read_status(event.object)
            self._version = None
            text = said(status, status.code, "watch", self._place.namespace, self._api.host)
            raise RefusedError(text, status=status.code)
        one = read_slice(event.object)
        if one.metadata.resource_version:
            self._version = one.metadata.resource_version
        if event.type in {"ADDED", "MODIFIED"}:
            self._slices[one.metadata.name] = one
            self._bound(self._slices)
        elif event.type == "DELETED":
            self._slices.pop(one.metadata.name, None)
        return event.type != "BOOKMARK"

    def _bound(self, slices: dict[str, Slice]) -> None:
        left_out = max(0, len(slices) - SLICES_MAX)
        for _ in range(left_out):
            slices.popitem()
        if left_out and not self._left_out:
            log.error("%s: slices after the first %d are left out", self._place, SLICES_MAX)
        self._left_out = left_out

    # ------------------------------------------------------------------------------ failures

    def trouble(self) -> str | None:
        """Why nothing is known now, or may be out of date; that nothing was heard yet too."""
        if self.failure is None and not self._is_heard:
            return f"{self._api.host} has not answered yet"
        return self.failure

    def _heard(self) -> None:
        self.seen_ns = monotonic_ns()
        self._is_heard = True
        self.failure = None
        if self._kind:
            log.info("%s: followed again", self._place)
            self._kind = ""

    def _failed(self, kind: str, why: str) -> None:
        """Something went wrong; the log says so once of each kind."""
        self._failures += 1
        is_brief = kind in MENDED and self._failures < PATIENCE_FAILURES
        if not (is_brief and self._is_heard):
            self.failure = why  # who asks at the start is told at once: there is no list that stays
        if not is_brief and kind != self._kind:
            self._kind = kind
            log.error("%s: %s; the last list stays", self._place, why)

    def _back_off_s(self) -> float:
        longest_s = min(BACK_OFF_S * 2.0 ** min(self._failures - 1, 10), BACK_OFF_S_MAX)
        return longest_s * self._uniform(0.5, 1.0)
