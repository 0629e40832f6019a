"""One run and its figures: what a process of the pool does."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat

import msgspec

from bench.judge.cases import Case
from bench.judge.variants import Variant
from skylb.tools.sim.requests import Requests, requests
from skylb.tools.sim.result import Distribution, Records, Result
from skylb.tools.sim.scenario import Scenario
from skylb.tools.sim.simulate import BrokenError, finish, prepare

Figures = dict[str, float]
"""Figures of one run by name; a figure that a run lacks is left out."""

LENGTHS: tuple[tuple[str, int], ...] = (("2k", 2000), ("8k", 8000), ("more", 1 << 62))
"""Classes of prompts: name, and the length in tokens below which a prompt belongs to it."""

FAILED_TTFT_S = 120.0
"""A failed request counts as a time to first token of four times the longest hold.

A rule that refuses whom it cannot serve in time must not look faster for that.
"""


FAILED_E2E_S = 600.0
"""The same for the last token."""


PATIENCE = 4.0
"""A rate is not sustained if the P90 of the first token exceeds so many times its bound.

Sessions wait for their answers, so that slow answers hold up what would be sent. That as many requests are
answered as are sent does not show it.
"""


@dataclass(frozen=True)
class Task:
    """Variants that share one stream of requests; ``load`` is the name of its rate."""

    case: Case
    load: str
    rate_per_s: float
    seed: int
    variants: tuple[Variant, ...]


def run_task(task: Task) -> list[Figures]:
    """Figures of each variant.

    Raises:
        BrokenError: an invariant broke; says with which variant.
    """
    base = task.case.scenario(task.rate_per_s, task.seed)
    made, lengths = _made(base)
    found = []
    for variant in task.variants:
        try:
            result = finish(prepare(variant.of(base), made))
        except BrokenError as error:
            raise BrokenError(f"{task.case.name}, {variant.name}, seed {task.seed}: {error}") from error
        found.append(figures(result, task.case, lengths))
    return found


_MADE: dict[bytes, tuple[Requests, dict[int, int]]] = {}
_MADE_MAX = 6


def _made(scenario: Scenario) -> tuple[Requests, dict[int, int]]:
    """Requests of a scenario and their lengths; this process keeps the last few."""
    key = msgspec.json.encode(scenario)
    if key not in _MADE:
        while len(_MADE) >= _MADE_MAX:
            del _MADE[next(iter(_MADE))]
        made = requests(scenario)
        _MADE[key] = made, prompt_lengths(made)
    return _MADE[key]


def prompt_lengths(made: Requests) -> dict[int, int]:
    """Prompt tokens by id of a request."""
    columns = msgspec.json.decode(made.data, type=_Columns)
    return dict(zip(columns.id, columns.in_tokens, strict=True))


class _Columns(msgspec.Struct, rename={"in_tokens": "in"}):
    id: list[int]
    in_tokens: list[int]


def figures(result: Result, case: Case, lengths: dict[int, int]) -> Figures:
    """All figures of a run.

    ``within_ttft``, ``within_inter_token``: shares within the case's bounds. ``within_patience``: within
    `PATIENCE` times the first. ``sustained``: requests answered over requests sent, in the measured time.
    ``sent_*`` and ``refused_*``: requests by class of length.
    """
    total = result.total
    records = result.records
    if records is None:
        raise AssertionError("the scenario asks for records")
    times = sorted(first_tokens(records, total.unfinished))
    ends = sorted(last_tokens(records, total.unfinished))
    found: dict[str, float | None] = {
        "sustained": total.requests_per_s * result.measured_s / max(1, total.requests),
        "within_ttft": bisect_right(times, case.ttft_bound_s) / max(1, len(times)),
        "within_patience": bisect_right(times, case.ttft_bound_s * PATIENCE) / max(1, len(times)),
        "within_inter_token": share_within(total.inter_token_s, case.inter_token_bound_s),
        "ttft_p50_s": quantile(times, 0.5),
        "ttft_p90_s": quantile(times, 0.9),
        "ttft_p99_s": quantile(times, 0.99),
        "inter_token_p99_s": total.inter_token_s.p99,
        "e2e_p50_s": quantile(ends, 0.5),
        "e2e_p90_s": quantile(ends, 0.9),
        "hit_rate": total.hit_rate,
        "tokens_per_s": total.throughput_tokens_per_s,
        "output_tokens_per_s": total.output_tokens_per_s,
        "refused": float(total.failures + total.unfinished),
    }
    found |= refused_by_length(records, lengths)
    return {name: value for name, value in found.items() if value is not None}


def first_tokens(records: Records, unfinished: int) -> Iterator[float]:
    """Times to the first token, `FAILED_TTFT_S` at most: what failed or did not end counts as that."""
    for time_s, outcome in zip(records.ttft_s, records.outcome, strict=True):
        yield min(time_s, FAILED_TTFT_S) if time_s is not None and outcome == "ok" else FAILED_TTFT_S
    yield from repeat(FAILED_TTFT_S, unfinished)


def last_tokens(records: Records, unfinished: int) -> Iterator[float]:
    """Times to the last token, `FAILED_E2E_S` at most: what failed or did not end counts as that."""
    for time_s, outcome in zip(records.e2e_s, records.outcome, strict=True):
        yield min(time_s, FAILED_E2E_S) if outcome == "ok" else FAILED_E2E_S
    yield from repeat(FAILED_E2E_S, unfinished)


def refused_by_length(records: Records, lengths: dict[int, int]) -> Figures:
    """Requests sent and failed, by class of prompt length."""
    found = {f"{what}_{name}": 0.0 for what in ("sent", "refused") for name, _ in LENGTHS}
    for number, outcome in zip(records.id, records.outcome, strict=True):
        name = length_class(lengths[number])
        found[f"sent_{name}"] += 1
        found[f"refused_{name}"] += outcome != "ok"
    return found


def length_class(tokens: int) -> str:
    """Class of a prompt: below 2,000 tokens, below 8,000, or more."""
    return next(name for name, below in LENGTHS if tokens < below)


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that is at least as large as a share of all; ``None`` without any."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else None


def share_within(distribution: Distribution, bound_s: float) -> float | None:
    """Share of durations within a bound, linear inside the bucket that holds it; ``None`` without any."""
    if not distribution.histogram:
        return None
    bounds = [upper_s for upper_s, _ in distribution.histogram]
    seen = list(accumulate(count for _, count in distribution.histogram))
    at = sum(upper_s <= bound_s for upper_s in bounds)
    below = float(seen[at - 1]) if at else 0.0
    if at < len(bounds):
        lower_s = bounds[at] / BUCKET_GROWTH
        inside = max(0.0, (bound_s - lower_s) / (bounds[at] - lower_s)) if bounds[at] > lower_s else 0.0
        below += inside * (seen[at] - below)
    return below / seen[-1]


BUCKET_GROWTH = 1.01
"""The simulator's buckets grow by 1 %."""
