"""What the balancer says of itself (``/state``), and what follows from two looks at it."""

from collections import deque
from dataclasses import dataclass, field

import msgspec

RECENT_S = 10.0
"""What "now" means in rates and percentiles."""


class ReplicaState(msgspec.Struct, frozen=True):
    """One replica; see `skylb._core.ReplicaGauges`."""

    name: str
    health: str
    in_flight: int
    pending: int
    tree_blocks: int
    pushed_total: int
    cached_tokens_total: int
    prompt_tokens_total: int
    running: int | None = None


class _Hold(msgspec.Struct, frozen=True):
    requests: int


class _Engine(msgspec.Struct, frozen=True):
    replicas: list[ReplicaState]
    hold: _Hold


class State(msgspec.Struct, frozen=True):
    """The part of ``/state`` that the demo shows."""

    engine: _Engine

    @property
    def held(self) -> int:
        """Requests in the hold."""
        return self.engine.hold.requests

    @property
    def replicas(self) -> list[ReplicaState]:
        """All replicas."""
        return self.engine.replicas

    def tokens(self) -> tuple[int, int]:
        """Prompt tokens that engines reported as cached, and all they reported."""
        return (
            sum(replica.cached_tokens_total for replica in self.replicas),
            sum(replica.prompt_tokens_total for replica in self.replicas),
        )


def hit_rate(now: tuple[int, int], before: tuple[int, int] = (0, 0)) -> float | None:
    """Cached over prompt tokens between two looks; ``None`` where nothing was reported."""
    prompt = now[1] - before[1]
    return (now[0] - before[0]) / prompt if prompt > 0 else None


@dataclass(frozen=True, slots=True)
class Look:
    """The state at one time, and the load's TTFT histogram then."""

    elapsed_s: float
    state: State
    ttft_buckets: list[int]
    answered: int


@dataclass(slots=True)
class History:
    """The looks of the last `RECENT_S`, and what must be kept of those before."""

    looks: deque[Look] = field(default_factory=deque)
    held_max: int = 0
    hit_rates: deque[float] = field(default_factory=lambda: deque(maxlen=240))
    _seconds: int = 0

    def add(self, look: Look) -> None:
        """Takes a look; looks come in order of time."""
        self.looks.append(look)
        while look.elapsed_s - self.looks[0].elapsed_s > RECENT_S:
            self.looks.popleft()
        self.held_max = max(self.held_max, look.state.held)
        if look.elapsed_s >= self._seconds + 1:
            self._seconds = int(look.elapsed_s)
            rate = hit_rate(look.state.tokens(), self.looks[0].state.tokens())
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

    def answers_per_s(self) -> float:
        """Answers a second, recently."""
        seconds = self.last.elapsed_s - self.first.elapsed_s
        return (self.last.answered - self.first.answered) / seconds if seconds else 0.0

    def pushes_per_s(self, name: str) -> float:
        """Requests pushed to a replica a second, recently."""
        seconds = self.last.elapsed_s - self.first.elapsed_s
        then, now = (
            next((r.pushed_total for r in look.state.replicas if r.name == name), 0)
            for look in (self.first, self.last)
        )
        return (now - then) / seconds if seconds else 0.0
