"""What is compared: six workloads, three loads, every policy in several variants."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import msgspec

from skylb.config import EngineSettings, Policy
from skylb.tools.sim.scenario import Clients, Region, Replicas, Scenario
from skylb.tools.sim.workload import Agent, Arena, File, Mix, SharedPrompt, Tree, WildChat, Workload

POLICIES: tuple[str, ...] = get_args(Policy)
DEFAULT: str = EngineSettings().policy
ORACLE = "oracle"
FLOOR = "floor"
REFERENCE = "prefix"
"""Capacity is what this policy sustains."""

REGION = "us"
SHARES = (0.60, 0.85, 1.10)
TUNED_AT = 0.85
"""Load at which the others are tuned, and parts switched."""

FLOOR_FACTOR = 8
"""So many times the replicas: the TTFT of the same requests where nothing stands in their way."""

HOLD_TIMEOUT_S = 600.0
"""Longer than any wait here: a request refused by one variant and held by another cannot be compared."""


@dataclass(frozen=True)
class Case:
    """One workload and the fleet that serves it."""

    name: str
    workload: Workload
    profile: str = "l4-8b"
    replicas: int = 12
    max_tokens: int | None = 512
    duration_s: float = 600.0
    warmup_s: float = 120.0

    def scenario(self, rate_per_s: float, seed: int, duration_s: float, warmup_s: float) -> Scenario:
        """Sessions begin at a rate; nobody fails for having waited."""
        return Scenario(
            seed=seed,
            duration_s=duration_s,
            warmup_s=warmup_s,
            engine={"hold_timeout_s": HOLD_TIMEOUT_S},
            regions=[Region(name=REGION, replicas=[Replicas(count=self.replicas, profile=self.profile)])],
            clients=Clients(mode="sessions", max_tokens=self.max_tokens),
            workload=msgspec.structs.replace(self.workload, rate_per_s=rate_per_s),
        )


L4_TOKENS, H100_TOKENS = 16_000, 128_000

CASES = (
    Case("arena", Arena(tokens_max=L4_TOKENS)),
    Case("wildchat", WildChat(tokens_max=L4_TOKENS)),
    Case("shared_prompt", SharedPrompt(tokens_max=L4_TOKENS)),
    Case(
        "agent",
        Agent(tokens_max=H100_TOKENS, think_s=0.5, think_spread=1.5),
        profile="h100-8b",
        replicas=4,
        max_tokens=None,
        duration_s=780.0,
        warmup_s=300.0,  # sessions of minutes: until as many end as begin
    ),
    Case("tree", Tree(), duration_s=360.0),  # thirty requests a session: many in little time
    Case("mix", Mix(tokens_max=L4_TOKENS)),
)

TRACES = {
    "arena": "chat_arenalike_b64.jsonl.gz",
    "wildchat": "chat_wildchatlike_b64.jsonl.gz",
    "shared_prompt": "chat_sharedsys_b64.jsonl.gz",
    "agent": "agent_even_b8.jsonl.gz",
    "tree": "tot_gsm8k_b2.jsonl.gz",
}


def from_traces(directory: Path) -> tuple[Case, ...]:
    """The same cases but the mix with requests of trace files, in another order for each seed."""
    cases = []
    for case in CASES:
        if case.name in TRACES:
            tokens_max = H100_TOKENS if case.name == "agent" else L4_TOKENS
            path = str(directory / TRACES[case.name])
            file = File(path=path, shuffle=True, region=REGION, tokens_max=tokens_max)
            cases.append(replace(case, workload=file))
    return tuple(cases)


@dataclass(frozen=True)
class Variant:
    """One way to decide.

    Attributes:
        policy: of the engine, or ``oracle``.
        switch: what was switched on or off, of `SWITCHES`; empty: as shipped.
        engine: settings that differ from the defaults.
        scenario: fields of the scenario that do.
        replicas_factor: so many times the replicas.
    """

    policy: str
    switch: str = ""
    engine: dict[str, Any] = field(default_factory=dict)
    scenario: dict[str, Any] = field(default_factory=dict)
    replicas_factor: int = 1

    @property
    def name(self) -> str:
        """How it is told from the others."""
        return f"{self.policy} {self.switch}".rstrip()

    def of(self, scenario: Scenario) -> Scenario:
        """A scenario decided this way."""
        engine = scenario.engine | self.engine
        regions = [
            msgspec.structs.replace(region, replicas=[self._more(replicas) for replicas in region.replicas])
            for region in scenario.regions
        ]
        return msgspec.structs.replace(scenario, engine=engine, regions=regions, **self.scenario)

    def _more(self, replicas: Replicas) -> Replicas:
        return msgspec.structs.replace(replicas, count=replicas.count * self.replicas_factor)


SWITCHES: dict[str, dict[str, Any]] = {
    "without gate": {"engine": {"push": "blind"}},
    "without correction": {"scenario": {"tell_cached": False}},
}
FIRST_COME = "first come"
"""Held requests start in the order they came, whatever their work; only the default does otherwise."""

SWITCHES[FIRST_COME] = {"engine": {"hold_work_weight": 0.0}}

PAPER = {"allowance": "one"}


def variants(tuned: dict[str, dict[str, Any]], *, floor: bool, switches: bool) -> list[Variant]:
    """Every policy of the engine with its tuned settings, as it is and with each part switched."""
    found = [Variant(ORACLE, scenario={"topology": "oracle"})]
    found.append(Variant("prefix, paper's rules", engine={"policy": "prefix"} | PAPER))
    if floor:
        engine = {"policy": DEFAULT, "affinity_wait_s": 0.0}
        found.append(Variant(FLOOR, engine=engine, replicas_factor=FLOOR_FACTOR))
    for policy in POLICIES:
        engine = {"policy": policy} | tuned.get(policy, {})
        found.append(Variant(policy, engine=engine))
        for name, change in SWITCHES.items() if switches else ():
            if name == FIRST_COME and policy != DEFAULT:
                continue
            merged = engine | change.get("engine", {})
            found.append(Variant(policy, name, merged, change.get("scenario", {})))
    return found


TUNING: dict[str, list[dict[str, Any]]] = {
    "prefix": [{"match_threshold": share} for share in (0.1, 0.25, 0.75)],
    "bounded_ring": [{"ring_load_factor": factor} for factor in (1.1, 1.5, 2.0)],
    "cache_aware": [
        {"cache_aware_abs": most, "cache_aware_threshold": share}
        for most in (4, 16)
        for share in (0.1, 0.3, 0.5)
    ],
    "smg": [{"smg_waiting_max": most, "smg_kv_ratio_max": share} for most in (1, 8) for share in (0.8, 0.95)],
    "llm_d": [
        {"llm_d_prefix_weight": prefix, "llm_d_kv_weight": kv}
        for prefix in (1.0, 3.0, 6.0)
        for kv in (0.0, 2.0)
    ],
    "dynamo": [{"dynamo_prefill_weight": weight} for weight in (0.5, 2.0, 4.0)],
    "preble": [
        {"preble_window_s": window_s, "preble_balance_ratio": ratio}
        for window_s in (30.0, 180.0)
        for ratio in (1.5, 2.0, 4.0)
    ],
    "gorgo": [{"gorgo_token_s": token_s} for token_s in (0.000_025, 0.000_5)],
}
"""Settings tried for the rivals, besides their defaults, on seeds and loads of their own."""


def tuning_variants() -> list[tuple[str, dict[str, Any]]]:
    """Policies with the settings to try, the defaults first."""
    known = EngineSettings.model_fields
    found: list[tuple[str, dict[str, Any]]] = []
    for policy in POLICIES:
        grid = [values for values in TUNING.get(policy, []) if values.keys() <= known.keys()]
        if grid and policy != DEFAULT:
            found += [(policy, {}), *((policy, values) for values in grid)]
    return found
