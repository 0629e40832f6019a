"""What balancers say of themselves (``/state``), and what follows from two looks at it."""

from collections import deque
from dataclasses import dataclass, field

from skylb.admin.state import State
from skylb.tools.load.stats import Histogram

RECENT_S = 10.0
"""What "now" means in rates and percentiles."""


FLOW_S = 2.0
"""The same for flows between regions."""

SHORT_S = 5.0
"""The same for the chart of all users' TTFT: a switch shows in it within seconds."""


def hit_rate(now: tuple[int, int], before: tuple[int, int] = (0, 0)) -> float | None:
    """Cached over prompt tokens between two looks; ``None`` where nothing was reported or it began anew."""
    prompt, cached = now[1] - before[1], now[0] - before[0]
    return cached / prompt if prompt > 0 and cached >= 0 else None


@dataclass(frozen=True, slots=True)
class Users:
    """One region's users at one time."""

    buckets: list[int]
    """Of the TTFT histogram."""
    answered: int


@dataclass(frozen=True, slots=True)
class Look:
    """All regions at one time; a balancer that does not answer is not among the states."""

    elapsed_s: float
    states: dict[str, State]
    users: dict[str, Users]

    @property
    def held(self) -> int:
        """Requests in all holds."""
        return sum(state.held for state in self.states.values())

    def tokens(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Cached and all prompt tokens so far, by balancer and replica."""
        return {
            (region, replica.name): (replica.cached_tokens_total, replica.prompt_tokens_total)
            for region, state in self.states.items()
            for replica in state.replicas
        }

    def forwards(self) -> dict[tuple[str, str], int]:
        """Forwards so far, by balancer and peer."""
        return {
            (region, peer.name): peer.forwarded_total
            for region, state in self.states.items()
            for peer in state.peers
        }


@dataclass(slots=True)
class History:
    """The looks of the last `RECENT_S`, and what must be kept of those before."""

    looks: deque[Look] = field(default_factory=deque)
    held_max: int = 0
    forwarded: int = 0
    hit_rates: deque[float] = field(default_factory=lambda: deque(maxlen=240))
    _seconds: int = 0

    def add(self, look: Look) -> None:
        """Takes a look; looks come in order of time."""
        if self.looks:
            before = self.last.forwards()
            self.forwarded += sum(max(0, n - before.get(way, 0)) for way, n in look.forwards().items())
        self.looks.append(look)
        while look.elapsed_s - self.looks[0].elapsed_s > RECENT_S:
            self.looks.popleft()
        self.held_max = max(self.held_max, look.held)
        if look.elapsed_s >= self._seconds + 1:
            self._seconds = int(look.elapsed_s)
            rate = self.hit_rate()
            if rate is not None:
                self.hit_rates.append(rate)

    @property
    def first(self) -> Look:
        """The oldest look that is still recent."""
        return self.looks[0]

    @property
    def last(self) -> Look:
        """The newest look."""
        return self.looks[-1]

    @property
    def seconds(self) -> float:
        """Between the two."""
        return self.last.elapsed_s - self.first.elapsed_s

    def hit_rate(self, name: str | None = None) -> float | None:
        """Recent share of prompt tokens that replicas, or one by its URL, found in their caches."""
        before = self.first.tokens()
        cached = prompt = 0
        for (region, replica), (cached_now, prompt_now) in self.last.tokens().items():
            cached_then, prompt_then = before.get((region, replica), (0, 0))
            if name in {None, replica} and prompt_now >= prompt_then:
                cached += cached_now - cached_then
                prompt += prompt_now - prompt_then
        return hit_rate((cached, prompt))

    def answers_per_s(self, region: str) -> float:
        """Answers a second to a region's users, recently."""
        then, now = (look.users[region].answered for look in (self.first, self.last))
        return (now - then) / self.seconds if self.seconds else 0.0

    def ttft(self, total: Histogram, seconds: float = SHORT_S) -> Histogram:
        """TTFT of all users over the last ``seconds``; ``total``: over all time."""
        until_s = self.last.elapsed_s - seconds
        since = next((look for look in reversed(self.looks) if look.elapsed_s <= until_s), self.first)
        buckets = [
            sum(column) for column in zip(*(users.buckets for users in since.users.values()), strict=True)
        ]
        return total.since(buckets)

    def forwards_per_s(self, origin: str, target: str) -> float:
        """Forwards a second from one balancer to another, over the last `FLOW_S`."""
        now = self.last.forwards().get((origin, target), 0)
        until_s = self.last.elapsed_s - FLOW_S
        since = next((look for look in reversed(self.looks) if look.elapsed_s <= until_s), self.first)
        seconds = self.last.elapsed_s - since.elapsed_s
        return max(0, now - since.forwards().get((origin, target), now)) / seconds if seconds else 0.0
