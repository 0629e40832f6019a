"""Samples of a balancer, taken once a second: what is recent, and what has changed.

The live page opens with the past in its charts, and with the events before it was opened. So the samples are
taken whether a page is open or not. A sample reads counters and the condition of each replica and peer. Its
cost grows with the fleet, so a large fleet is looked at less often.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping

import msgspec

RECENT_S = 60.0
"""What *recent* means: the time over which errors, rates and hit rates are counted."""

PULSES_LEN = 600
"""Samples kept: ten minutes."""

EVENTS_LEN = 100
"""Events kept; the oldest leaves."""

TOKENS_INTERVAL_S = 10.0
"""Between two samples of the counters of each replica and peer."""

MEMBERS_PER_S = 256
"""Replicas and peers whose condition is read per second, on average."""


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """What a balancer has counted so far, and how it is now.

    Attributes:
        uptime_s: since its start.
        ended: requests for inference that ended, and requests refused before that was known.
        errors: those of them that ended with an error, by code.
        held: requests in the hold.
        in_flight: requests that SkyLB has taken and not answered in full.
        ttft_p50_s: time to first token, median of the latest requests; ``None`` before the first.
        ttft_p90_s: the same, ninth decile.
        gap_p50_s: time between two tokens of a stream, median.
        gap_p90_s: the same, ninth decile.
    """

    uptime_s: float
    ended: int = 0
    errors: dict[str, int] = {}
    held: int = 0
    in_flight: int = 0
    ttft_p50_s: float | None = None
    ttft_p90_s: float | None = None
    gap_p50_s: float | None = None
    gap_p90_s: float | None = None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A replica or a peer at one moment.

    Attributes:
        condition: a word, and its reason behind a colon: ``up``, ``down: connection refused``.
        cached: prompt tokens that it found in its cache so far, by its own count.
        prompt: prompt tokens so far.
        forwarded: forwards to it so far.
    """

    condition: str
    cached: int = 0
    prompt: int = 0
    forwarded: int = 0

    @property
    def word(self) -> str:
        """The condition without its reason."""
        return self.condition.partition(":")[0].partition(";")[0]

    @property
    def reason(self) -> str:
        """The reason, empty where there is none."""
        return self.condition.removeprefix(self.word).lstrip(":; ")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something changed.

    Attributes:
        at_s: uptime when it was seen.
        level: ``good``, ``warn`` or ``bad``.
        text: a sentence.
    """

    at_s: float
    level: str
    text: str


GOOD = frozenset({"up", "alive"})
BAD = frozenset({"down", "ejected", "wedged", "dead", "unreachable"})


def level_of(word: str) -> str:
    """How bad a condition is: ``good``, ``warn`` or ``bad``."""
    return "good" if word in GOOD else "bad" if word in BAD else "warn"


class Pulses:
    """The samples of the last minutes, and the events that follow from them."""

    def __init__(self) -> None:
        self._pulses: deque[Pulse] = deque(maxlen=PULSES_LEN)
        self._totals: deque[tuple[float, Mapping[str, Member]]] = deque(
            maxlen=round(RECENT_S / TOKENS_INTERVAL_S) + 1
        )
        self._members: Mapping[str, Member] = {}
        self._since_s: dict[str, float] = {}
        self._looked_s: float | None = None
        self.events: deque[Event] = deque(maxlen=EVENTS_LEN)
        """The oldest first."""

    def add(self, pulse: Pulse) -> None:
        """Takes a sample; samples come in order of time."""
        self._pulses.append(pulse)

    def members_due(self, uptime_s: float) -> bool:
        """Whether it is time to read the condition of each replica and peer again."""
        return self._looked_s is None or uptime_s - self._looked_s >= len(self._members) / MEMBERS_PER_S

    def look(self, uptime_s: float, members: Mapping[str, Member]) -> None:
        """Takes the conditions of all replicas and peers, by name; notes what has changed."""
        before, self._members = self._members, members
        first, self._looked_s = self._looked_s is None, uptime_s
        for name, member in members.items():
            was = before.get(name)
            if was is not None and was.word == member.word:
                continue
            self._since_s[name] = uptime_s
            if not first:
                self._note(uptime_s, name, member, was)
        for name in before.keys() - members.keys():
            self._since_s.pop(name, None)
            self.note(uptime_s, "warn", f"{name} has left")
        if not self._totals or uptime_s - self._totals[-1][0] >= TOKENS_INTERVAL_S:
            self._totals.append((uptime_s, members))

    def _note(self, uptime_s: float, name: str, member: Member, was: Member | None) -> None:
        reason = f": {member.reason}" if member.reason else ""
        joined = "has joined and is" if was is None else "is"
        text = f"{name} {joined} {member.word}{reason}"
        self.note(uptime_s, level_of(member.word), text)

    def note(self, uptime_s: float, level: str, text: str) -> None:
        """Adds an event that no condition shows."""
        self.events.append(Event(at_s=round(uptime_s, 1), level=level, text=text))

    # ------------------------------------------------------------------------------- reading

    @property
    def last(self) -> Pulse:
        """The newest sample."""
        return self._pulses[-1]

    def condition(self, name: str) -> Member:
        """How a replica or peer is; ``unknown`` without a look at it."""
        return self._members.get(name, Member(condition="unknown"))

    def since_s(self, name: str) -> float | None:
        """Uptime since which it is so; ``None`` without a look at it."""
        return self._since_s.get(name)

    def _recent(self) -> Iterator[Pulse]:
        """Samples of the last `RECENT_S`, the newest first."""
        for pulse in reversed(self._pulses):
            if self.last.uptime_s - pulse.uptime_s > RECENT_S:
                return
            yield pulse

    def window(self) -> tuple[float, int, dict[str, int]]:
        """Recent time in seconds, and the requests that ended in it: all, and by code of error."""
        first = last = self.last
        for pulse in self._recent():
            first = pulse
        errors = Counter(last.errors)
        errors.subtract(first.errors)
        found = {code: count for code, count in errors.most_common() if count > 0}
        return last.uptime_s - first.uptime_s, last.ended - first.ended, found

    def rate_per_s(self, seconds: float = 10.0) -> float:
        """Requests that ended per second."""
        last = self.last
        for pulse in self._recent():
            if last.uptime_s - pulse.uptime_s >= seconds:
                break
        span_s = last.uptime_s - pulse.uptime_s
        return (last.ended - pulse.ended) / span_s if span_s > 0 else 0.0

    def held_for(self, seconds: float) -> bool:
        """Whether some request was in the hold at each sample of the last ``seconds``."""
        for pulse in self._recent():
            if not pulse.held:
                return False
            if self.last.uptime_s - pulse.uptime_s >= seconds:
                return True
        return False

    def hit_rate(self, name: str) -> float | None:
        """Recent share of prompt tokens that a replica had in its cache; ``None`` where it reported none."""
        now = self._members.get(name)
        if now is None or not self._totals:
            return None
        then = self._totals[0][1].get(name, Member(condition=""))
        if then.prompt > now.prompt:
            then = Member(condition="")  # another server has taken its name
        prompt, cached = now.prompt - then.prompt, now.cached - then.cached
        return cached / prompt if prompt > 0 else None

    def forwards_per_s(self, name: str) -> float:
        """Recent forwards to a peer per second."""
        now = self._members.get(name)
        if now is None or not self._totals:
            return 0.0
        then_s, members = self._totals[0]
        then = members.get(name)
        span_s = self.last.uptime_s - then_s
        return max(0, now.forwarded - then.forwarded) / span_s if then is not None and span_s > 0 else 0.0
