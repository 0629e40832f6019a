"""From a scenario's workload to the requests that the simulator reads."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from skylb.errors import ConfigError
from skylb.tools.load.turn import Turn
from skylb.tools.load.workload import (
    REQUESTS_MAX,
    Workload,
    WorkloadError,
    read_workload,
    select_sessions,
    select_time,
)
from skylb.tools.sim.made import NONE, Plan, draw, make, of_tenant, resampled
from skylb.tools.sim.scenario import Scenario
from skylb.tools.sim.workload import File, Kind

_COLUMNS = {
    "id": "id",
    "t": "t_s",
    "after": "after",
    "think": "think_s",
    "region": "region",
    "user": "user",
    "session": "session",
    "in": "in_tokens",
    "out": "out_tokens",
    "block": "block_tokens",
    "runs": "runs",
}
"""Columns of the simulator's form (``rust/src/sim/workload.rs``) and fields of `Turn`."""


@dataclass(frozen=True, slots=True)
class Requests:
    """A workload in the simulator's form.

    Attributes:
        data: as JSON columns.
        count: requests in it.
        lines_bad: broken lines left out of a file.
        first_fault: what was wrong with the first of them.
    """

    data: bytes
    count: int
    lines_bad: int = 0
    first_fault: str | None = None


def requests(scenario: Scenario) -> Requests:
    """Reads or makes the workload of a scenario.

    Raises:
        ConfigError: the regions of requests are not the scenario's.
        WorkloadError: a file cannot be read, or has a broken line: names both.
    """
    kind = scenario.workload
    if scenario.tenants:
        return _of_tenants(scenario)
    plan = _plan(scenario, kind)
    if not isinstance(kind, File):
        return _packed(Workload(make(kind, plan, scenario.seed)))
    workload = _read(Path(kind.path), kind.skip_bad, kind.scale)
    turns = workload.turns
    if kind.model is not None:
        turns = [turn for turn in turns if turn.model in {None, kind.model}]
    if (kind.model, kind.from_s, kind.until_s) != (None, 0.0, None):
        turns = select_time(turns, kind.from_s, kind.until_s)
    if kind.tokens_max is not None:
        too_long = {t.session for t in turns if t.in_tokens + t.out_tokens > kind.tokens_max}
        turns = [turn for turn in turns if turn.session not in too_long]
    if kind.shuffle:
        turns = resampled(turns, kind, plan, scenario.seed)
    else:
        turns = select_sessions(turns, kind.sessions)
    if kind.region is not None:
        turns = [msgspec.structs.replace(turn, region=kind.region) for turn in turns]
    known = {region.name for region in scenario.regions}
    unknown = sorted({turn.region for turn in turns} - known)
    if unknown:
        fault = f"workload.path: {kind.path} has requests of region {', '.join(unknown)}"
        raise ConfigError([f"{fault}: expected regions of the scenario, or workload.region for all"])
    if not turns:
        raise ConfigError([f"workload: tokens_max, model or times leave no request of {kind.path}"])
    return _packed(Workload(turns, workload.lines_bad, workload.first_fault))


@lru_cache(maxsize=8)
def _read(path: Path, skip_bad: bool, scale: int) -> Workload:
    workload = read_workload(path, skip_bad=skip_bad)
    if scale > 1:
        workload.turns = [_scaled(turn, scale) for turn in workload.turns]
    return workload


def _scaled(turn: Turn, scale: int) -> Turn:
    """The same request with a longer prompt, which shares as large a part with others as before."""
    return msgspec.structs.replace(
        turn, in_tokens=turn.in_tokens * scale, block_tokens=turn.block_tokens * scale
    )


def _of_tenants(scenario: Scenario) -> Requests:
    """Each tenant's requests, made by themselves."""
    turns: list[Turn] = []
    tenants: dict[int, int] = {}
    number = 0
    for of in scenario.tenants:
        kind = of.workload or scenario.workload
        if isinstance(kind, File):
            raise ConfigError(["tenants: a tenant's requests are made, not read from a file"])
        if of.rate_per_s is not None:
            kind = msgspec.structs.replace(kind, rate_per_s=of.rate_per_s)
        until_s = scenario.duration_s if of.until_s is None else of.until_s
        plan = _plan(scenario, kind)
        plan = Plan(plan.shares, plan.users, until_s - of.from_s)
        for _ in range(of.count):
            made = of_tenant(draw(kind, plan, scenario.seed + (number << 62)), number, of.from_s)
            turns += made
            tenants |= {turn.id: number for turn in made}
            number += 1
    if not turns:
        raise WorkloadError(NONE)
    if len(turns) > REQUESTS_MAX:
        raise WorkloadError(f"tenants: more than {REQUESTS_MAX} requests")
    turns.sort(key=lambda turn: (turn.t_s, turn.id))
    return _packed(Workload(turns), [tenants[turn.id] for turn in turns])


def _plan(scenario: Scenario, kind: Kind) -> Plan:
    """Where sessions begin: as the workload says, else as the users are spread, else everywhere alike."""
    closed = scenario.clients.mode == "closed"
    users = scenario.clients.users if closed else {}
    names = [region.name for region in scenario.regions]
    shares: dict[str, float] = dict(kind.shares)
    unknown = sorted(shares.keys() - set(names))
    if unknown:
        raise ConfigError([f"workload.shares: there is no region {', '.join(unknown)}"])
    if not shares:
        shares = {name: float(users.get(name, 0)) for name in names} if closed else dict.fromkeys(names, 1.0)
    shares = {name: share for name, share in shares.items() if share > 0}
    if not shares:
        where = "workload.shares" if kind.shares else "clients.users"
        raise ConfigError([f"{where}: no region sends anything: expected a region with a value above 0"])
    return Plan(shares, users, scenario.duration_s)


def _packed(workload: Workload, tenants: list[int] | None = None) -> Requests:
    columns: dict[str, list[Any]] = {
        column: [getattr(turn, name) for turn in workload.turns] for column, name in _COLUMNS.items()
    }
    if tenants is not None:
        columns["tenant"] = tenants
    data = msgspec.json.encode(columns)
    return Requests(data, len(workload.turns), workload.lines_bad, workload.first_fault)
