"""What is counted and timed while a load runs, per region."""

import math
import operator
import re
from collections import Counter
from dataclasses import dataclass, field

KINDS_MAX = 64
"""Distinct kinds of error; more are counted as ``other``."""

SAMPLE_CHARS_MAX = 300

_LOWEST_S = 1e-6
_GROWTH = 1.01
_SCALE = 1 / math.log(_GROWTH)
_BUCKETS = 2400
"""From one microsecond to more than 10,000 seconds."""


class Histogram:
    """Durations in buckets that grow by 1 %: quantiles to half a percent in 19 kB, however many there are."""

    __slots__ = ("_buckets", "count", "max_s", "min_s", "sum_s")

    def __init__(self) -> None:
        self._buckets = [0] * _BUCKETS
        self.count = 0
        self.sum_s = 0.0
        self.min_s = math.inf
        self.max_s = 0.0

    def add(self, value_s: float) -> None:
        """Counts one duration; negative ones count as zero."""
        value_s = max(value_s, 0.0)
        index = int(math.log(value_s / _LOWEST_S) * _SCALE) + 1 if value_s > _LOWEST_S else 0
        self._buckets[min(index, _BUCKETS - 1)] += 1
        self.count += 1
        self.sum_s += value_s
        self.min_s = min(self.min_s, value_s)
        self.max_s = max(self.max_s, value_s)

    def merge(self, other: "Histogram") -> None:
        """Adds all of another's durations."""
        self._buckets = list(map(operator.add, self._buckets, other.buckets))
        self.count += other.count
        self.sum_s += other.sum_s
        self.min_s = min(self.min_s, other.min_s)
        self.max_s = max(self.max_s, other.max_s)

    def quantile(self, q: float) -> float | None:
        """The smallest duration that a share ``q`` does not exceed, to 0.5 %; ``None`` when empty."""
        if self.count == 0:
            return None
        rank = max(1, math.ceil(q * self.count))
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if seen >= rank and index == 0:
                return self.min_s  # beyond the buckets' range
            if seen >= rank and index == _BUCKETS - 1:
                return self.max_s
            if seen >= rank:
                middle_s: float = _LOWEST_S * _GROWTH ** (index - 0.5)
                return min(max(middle_s, self.min_s), self.max_s)
        raise AssertionError("more counted than kept")

    def since(self, buckets: list[int]) -> "Histogram":
        """What was added after ``buckets`` were read; its extremes are those of the whole."""
        recent = Histogram()
        recent._buckets = list(map(operator.sub, self._buckets, buckets))
        recent.count = sum(recent._buckets)
        recent.min_s, recent.max_s = self.min_s, self.max_s
        return recent

    @property
    def buckets(self) -> list[int]:
        """Durations per bucket, a copy."""
        return self._buckets.copy()

    @property
    def mean_s(self) -> float | None:
        """Exact mean."""
        return self.sum_s / self.count if self.count else None


_CODE = re.compile(r'"code":\s*"(\w{1,40})"')


def _code(kind: str, message: str) -> str:
    """The code that an answer (``http_503``) or an event (``stream_error``) gave; else the kind."""
    if kind == "stream_error":
        code = message.partition(":")[0]
        return code if code.isidentifier() else kind
    found = _CODE.search(message) if kind.startswith("http_") else None
    return found[1] if found is not None else kind


@dataclass(slots=True)
class Tokens:
    """Sums over responses with usage."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


@dataclass(slots=True)
class Tally:
    """One region's figures (or, merged, all regions').

    ``measured`` excludes what began in the warm-up; ``window`` counts tokens and answers that
    *ended* within the measured time, which is what rates are made of.
    """

    begun: int = 0
    warmup: int = 0
    ok: int = 0
    failed: int = 0
    unfinished: int = 0
    stale: int = 0
    in_flight: int = 0
    usage_missing: int = 0
    prompt_mismatches: int = 0
    measured: Tokens = field(default_factory=Tokens)
    window: Tokens = field(default_factory=Tokens)
    window_ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    """Of the errors, by the code that the answer or event gave, else by kind."""
    samples: dict[str, str] = field(default_factory=dict)
    ttft: Histogram = field(default_factory=Histogram)
    itl: Histogram = field(default_factory=Histogram)
    tpot: Histogram = field(default_factory=Histogram)
    e2e: Histogram = field(default_factory=Histogram)

    def fail(self, kind: str, message: str) -> None:
        """Counts a failed request, and keeps one message of each kind."""
        if kind not in self.errors and len(self.errors) >= KINDS_MAX:
            kind = "other"
        self.failed += 1
        self.errors[kind] += 1
        code = _code(kind, message)
        self.codes[code if code in self.codes or len(self.codes) < KINDS_MAX else "other"] += 1
        self.samples.setdefault(kind, message[:SAMPLE_CHARS_MAX])

    def merge(self, other: "Tally") -> None:
        """Adds all of another's figures."""
        for name in (
            "begun", "warmup", "ok", "failed", "unfinished", "stale", "in_flight", "usage_missing",
            "prompt_mismatches", "window_ok",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.measured, other.measured), (self.window, other.window)):
            mine.prompt += theirs.prompt
            mine.completion += theirs.completion
            mine.cached += theirs.cached
        for name in ("ttft", "itl", "tpot", "e2e"):
            getattr(self, name).merge(getattr(other, name))
        self.errors += other.errors
        self.codes += other.codes
        self.samples = other.samples | self.samples
