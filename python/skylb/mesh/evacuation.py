"""Counts and logs requests that a region still serves though it is being evacuated.

An operator can see from that whether the region may be stopped.
"""

import logging

from skylb.router import Router

log = logging.getLogger("skylb.mesh.peers")

LOG_INTERVAL_NS = 10_000_000_000
"""Between two lines of the log."""


class Evacuation:
    """Requests that begin at replicas here although this region is evacuated.

    Args:
        region: this balancer's.
        router: counts them.
    """

    def __init__(self, region: str, router: Router) -> None:
        self._region = region
        self._router = router
        self._evacuating = False
        self._before = 0
        self._logged = 0
        self._logged_ns = 0
        self.stayed = 0
        """So many since the evacuation began; 0 while there is none."""
        self._leave_ns: int | None = None

    def set(self, *, evacuating: bool, leave_ns: int | None = None) -> None:
        """An operator takes the region out, and its streams at ``leave_ns``; or back."""
        self._leave_ns = leave_ns if evacuating else None
        if evacuating and not self._evacuating:
            self._before = self._count()
            self._logged = self._logged_ns = 0
        self._evacuating = evacuating
        self.stayed = 0

    def look(self, now_ns: int) -> None:
        """Counts, and logs the count where it has grown."""
        if not self._evacuating:
            return
        self.stayed = self._count() - self._before
        if self.stayed > self._logged and (not self._logged or now_ns - self._logged_ns >= LOG_INTERVAL_NS):
            self._logged, self._logged_ns = self.stayed, now_ns
            log.warning(
                "region %s is evacuated, but requests have stayed: %d; no peer had room for them in time, "
                "or none may serve them",
                self._region,
                self.stayed,
            )

    def leaves_in_s(self, now_ns: int) -> float | None:
        """Seconds until its streams leave the region; 0 from then on; ``None``: they end here."""
        return None if self._leave_ns is None else round(max(0, self._leave_ns - now_ns) / 1e9, 3)

    def _count(self) -> int:
        return self._router.counters()["evacuation_stayed"]
