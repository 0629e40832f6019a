"""Runs of the judge: what one process of the pool does."""

from dataclasses import dataclass

import msgspec

from bench.judge.cases import REFERENCE, Case, Variant
from skylb.tools.load.workload import WorkloadError
from skylb.tools.sim.requests import requests
from skylb.tools.sim.result import Result
from skylb.tools.sim.simulate import BrokenError, finish, prepare
from skylb.tools.sim.summary import METRICS

Figures = dict[str, float | None]

SUSTAINED = 0.97
"""A rate is sustained if as many requests are answered as are sent, so nearly."""

BISECTIONS = 7
CAPACITY_SEEDS = (200, 201, 202)


@dataclass(frozen=True)
class Task:
    """Variants that share one stream of requests."""

    case: Case
    share: float
    rate_per_s: float
    seed: int
    variants: list[Variant]
    duration_s: float
    warmup_s: float


def figures(result: Result) -> Figures:
    """All figures of a run, and what it says of its cost."""
    found: Figures = {metric.name: metric.of(result) for metric in METRICS}
    found["ttft_mean_s"] = result.total.ttft_s.mean
    found["e2e_mean_s"] = result.total.e2e_s.mean
    found["lost"] = float(result.total.lost)
    found["probes_per_s"] = sum(balancer.probes for balancer in result.balancers) / max(1.0, result.now_s)
    waiting = [replica.waiting_mean for replica in result.replicas]
    found["waiting_mean"] = sum(waiting) / len(waiting)
    return found


def run_task(task: Task) -> list[Figures]:
    """Figures of each variant.

    Raises:
        BrokenError: an invariant broke; says with which variant.
    """
    base = task.case.scenario(task.rate_per_s, task.seed, task.duration_s, task.warmup_s)
    made = requests(base)
    found = []
    for variant in task.variants:
        try:
            found.append(figures(finish(prepare(variant.of(base), made))))
        except BrokenError as error:
            raise BrokenError(f"{task.case.name}, {variant.name}, {task.share:.0%}: {error}") from error
    return found


def capacity(case: Case) -> float:
    """The highest rate of sessions that the reference policy sustains, by bisection."""
    low, high = 0.0, 0.25
    while _sustained(case, high):
        low, high = high, high * 2
        if high > 1e4:
            raise AssertionError(f"{case.name}: no rate is too high")
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _sustained(case, middle) else (low, middle)
    return low


def _sustained(case: Case, rate_per_s: float) -> bool:
    answered = sent = 0.0
    reference = Variant(REFERENCE, engine={"policy": REFERENCE})
    for seed in CAPACITY_SEEDS:
        scenario = reference.of(case.scenario(rate_per_s, seed, case.duration_s, case.warmup_s))
        try:
            prepared = prepare(msgspec.structs.replace(scenario, drain_s=0.0))
        except WorkloadError:  # so low a rate that no session begins
            return True
        result = finish(prepared)
        answered += result.total.requests_per_s * result.measured_s
        sent += result.total.requests
    return answered >= SUSTAINED * sent
