"""Workloads and fleets, and the scenarios of one row."""

from dataclasses import dataclass
from functools import lru_cache

import msgspec

from bench.paper.workloads import REGIONS, RTT_MS
from skylb.tools.sim.requests import requests
from skylb.tools.sim.result import Result
from skylb.tools.sim.scenario import Clients, Network, Region, Replicas, Scenario, Tenant
from skylb.tools.sim.simulate import finish, prepare
from skylb.tools.sim.workload import Agent, Arena, Made

TENANTS = 9
FLOOD = 2.0
"""The flood sends so many times what the fleet can do."""

LOADS = (0.5, 0.85)
"""What the nine send together, as a share of what the fleet can do: their fair share is nine tenths."""


@dataclass(frozen=True)
class Case:
    """A workload, and the fleet of one region that serves it.

    Attributes:
        name: in the tables.
        workload: requests of every tenant.
        replicas: of one region.
        about_per_s: sessions that such a region answers, roughly: where :func:`capacity_per_s` begins.
        max_tokens: longest answer.
    """

    name: str
    workload: Made
    replicas: Replicas
    about_per_s: float
    max_tokens: int | None = None


CASES = (
    Case("chat", Arena(tokens_max=16_000), Replicas(8, "l4-8b"), 3.5, 512),
    Case(
        "shared prompts",
        Arena(
            single=1.0,
            sessions_per_user=1,
            systems=4,
            system_tokens=1500,
            first_tokens=150,
            answer_tokens=150,
        ),
        Replicas(6, "l4-8b"),
        12.0,
        512,
    ),
    Case("agents", Agent(tokens_max=60_000, think_s=0.5, turns=8.0), Replicas(4, "h100-8b"), 2.5),
)


@dataclass(frozen=True)
class Task:
    """One seed of one row."""

    case: Case
    regions: int
    load: float
    seed: int
    quick: bool

    @property
    def key(self) -> tuple[int, str, float, int]:
        """Tells it from the others."""
        return self.regions, self.case.name, self.load, self.seed

    @property
    def row(self) -> str:
        """What it is a seed of."""
        return f"{self.regions} region{'s' * (self.regions > 1)}, {self.case.name}, {self.load:.0%}"


def scenario(task: Task, tenth: Tenant | None, **engine: object) -> Scenario:
    """One run. The tenth tenant comes last, so that the others' requests are the same without it."""
    whole_per_s = capacity_per_s(task.case.name, quick=task.quick) * task.regions
    steady = Tenant("steady", count=TENANTS, rate_per_s=task.load * whole_per_s / TENANTS)
    return _scenario(task, [steady, *([tenth] if tenth else [])], **engine)


def polite(task: Task) -> Tenant:
    """A tenth tenant that sends what the nine leave, in all regions."""
    whole_per_s = capacity_per_s(task.case.name, quick=task.quick) * task.regions
    return Tenant("tenth", rate_per_s=(1.0 - task.load) * whole_per_s)


def flood(task: Task) -> Tenant:
    """A tenth tenant that sends twice what the fleet can do, to one region: others get it by forwards."""
    whole_per_s = capacity_per_s(task.case.name, quick=task.quick) * task.regions
    workload = msgspec.structs.replace(task.case.workload, shares={REGIONS[0]: 1.0})
    return Tenant(
        "flood", rate_per_s=FLOOD * whole_per_s, from_s=_times_s(quick=task.quick)[0] / 2, workload=workload
    )


@lru_cache
def capacity_per_s(name: str, *, quick: bool) -> float:
    """Sessions per second that one region of a case can do: tokens/s of a fleet that ten tenants flood, over
    the tokens of a session, which a fleet with little to do shows."""
    case = next(case for case in CASES if case.name == name)
    task = Task(case, 1, 0.0, 0, quick)
    light_per_s = case.about_per_s / 3

    def tokens_per_s(rate_per_s: float) -> float:
        tenants = Tenant("all", count=TENANTS + 1, rate_per_s=rate_per_s / (TENANTS + 1))
        return run(_scenario(task, [tenants])).total.throughput_tokens_per_s

    return tokens_per_s(case.about_per_s * FLOOD) * light_per_s / tokens_per_s(light_per_s)


def run(of: Scenario) -> Result:
    """Simulates it."""
    return finish(prepare(of, requests(of)))


def _scenario(task: Task, tenants: list[Tenant], **engine: object) -> Scenario:
    case, names = task.case, REGIONS[: task.regions]
    warmup_s, duration_s = _times_s(quick=task.quick)
    return Scenario(
        seed=task.seed,
        duration_s=duration_s,
        warmup_s=warmup_s,
        engine=engine,
        regions=[Region(name, replicas=[case.replicas]) for name in names],
        network=Network(rtt_ms=[row[: task.regions] for row in RTT_MS[: task.regions]]),
        clients=Clients(mode="sessions", max_tokens=case.max_tokens),
        tenants=tenants,
        workload=msgspec.structs.replace(case.workload, shares=dict.fromkeys(names, 1.0)),
    )


def _times_s(*, quick: bool) -> tuple[float, float]:
    return (30.0, 90.0) if quick else (60.0, 180.0)
