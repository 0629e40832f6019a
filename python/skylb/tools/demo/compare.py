"""What each setting gave: the users' TTFT before a switch and since, and under each setting so far."""

from collections import deque
from typing import NamedTuple

import msgspec

from skylb.tools.load.stats import Histogram

WARM_S = 10.0
"""After the start, caches fill: what is measured then counts for no setting."""

SETTLE_S = 2.0
"""After a switch, requests that began before it still arrive: they count for no setting."""

BEFORE_S = 30.0
"""The time before a switch that is compared with the time since."""

MARKS_LEN = 12


class Setting(NamedTuple):
    """How all balancers are set.

    Attributes:
        policy: their rule of choice.
        share: whether the regions share work.
        continuing: whether streams go on at another replica.
    """

    policy: str
    share: bool = True
    continuing: bool = False

    def text(self) -> str:
        """For people."""
        alone = "" if self.share else ", regions alone"
        return self.policy.replace("_", " ") + alone + (", streams go on" if self.continuing else "")

    def change(self, other: "Setting") -> str:
        """What is different in the other one, for people."""
        if self.policy != other.policy:
            return other.policy.replace("_", " ")
        if self.share != other.share:
            return "regions share" if other.share else "regions alone"
        return "streams go on" if other.continuing else "streams end"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Answers under one setting.

    Attributes:
        setting: for people.
        seconds: over which they were measured.
        requests: first tokens seen.
        p50_s: TTFT, median.
        p90_s: TTFT, ninth decile.
        now: it is the present setting.
    """

    setting: str
    seconds: float
    requests: int
    p50_s: float | None
    p90_s: float | None
    now: bool = False


def measured(setting: Setting, seconds: float, ttft: Histogram, *, now: bool = False) -> Measured:
    """What a histogram of TTFT says of a setting."""
    return Measured(
        setting=setting.text(),
        seconds=round(seconds, 1),
        requests=ttft.count,
        p50_s=ttft.quantile(0.5),
        p90_s=ttft.quantile(0.9),
        now=now,
    )


class Comparison:
    """Sorts what is measured by the setting under which it was.

    Args:
        setting: at the start.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._counts_from_s = WARM_S
        self._first: tuple[float, list[int]] | None = None
        """When this setting began to count, and what was measured by then."""
        self._recent: deque[tuple[float, list[int]]] = deque()
        self._given: dict[Setting, tuple[float, Histogram]] = {}
        self._now = Histogram()
        self._now_s = 0.0
        self.before: Measured | None = None
        """The time before the last switch."""
        self.marks: deque[tuple[float, str]] = deque(maxlen=MARKS_LEN)
        """Switches: when, and to what."""

    def look(self, elapsed_s: float, setting: Setting, ttft: Histogram) -> None:
        """Takes what was measured so far; looks come in order of time."""
        buckets = ttft.buckets
        if setting != self._setting:
            self._switch(elapsed_s, setting, ttft)
        if elapsed_s < self._counts_from_s:
            return
        if self._first is None:
            self._first = (elapsed_s, buckets)
        first_s, first = self._first
        self._now, self._now_s = ttft.since(first), elapsed_s - first_s
        self._recent.append((elapsed_s, buckets))
        while elapsed_s - self._recent[0][0] > BEFORE_S:
            self._recent.popleft()

    def _switch(self, elapsed_s: float, setting: Setting, ttft: Histogram) -> None:
        old, self._setting = self._setting, setting
        self.marks.append((round(elapsed_s, 2), old.change(setting)))
        self.before = None
        if self._first is not None:
            since_s, then = self._recent[0]
            self.before = measured(old, elapsed_s - since_s, ttft.since(then))
            seconds, whole = self._given.get(old, (0.0, Histogram()))
            whole.merge(self._now)
            self._given[old] = (seconds + self._now_s, whole)
        self._first, self._now, self._now_s = None, Histogram(), 0.0
        self._counts_from_s = max(WARM_S, elapsed_s + SETTLE_S)
        self._recent.clear()

    @property
    def since(self) -> Measured:
        """The time since the last switch."""
        return measured(self._setting, self._now_s, self._now, now=True)

    def given(self) -> list[Measured]:
        """Under each setting that has been measured, the first one first."""
        settings = dict.fromkeys((*self._given, self._setting))
        return [self._under(setting) for setting in settings]

    def _under(self, setting: Setting) -> Measured:
        seconds, before = self._given.get(setting, (0.0, Histogram()))
        whole = Histogram()
        whole.merge(before)
        if setting == self._setting:
            whole.merge(self._now)
            seconds += self._now_s
        return measured(setting, seconds, whole, now=setting == self._setting)
