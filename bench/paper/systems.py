"""What is compared: the paper's baselines, SkyLB as published, and SkyLB as shipped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal, get_args

import msgspec

from skylb.config import EngineSettings
from skylb.errors import ConfigError
from skylb.tools.sim.scenario import Scenario
from skylb.tools.sim.settings import parse_sweep

Role = Literal["global", "local", "published", "ours", "central"]

OURS = "predictive"
LOCAL = "L-predictive"
CENTRAL = "G-predictive"
SHIPPED_HOLD = "predictive-30s"


@dataclass(frozen=True)
class System:
    """One row of the tables.

    Attributes:
        name: ``G-``: one global balancer in us; ``L-``: one per region, which never forwards.
        title: what it is, for readers of the page.
        role: ``global`` and ``local`` are baselines; ``central`` is our rule in one global balancer.
        topology: of the scenario.
        engine: settings that differ from the defaults.
        set_: a row that ``--set`` adds.
    """

    name: str
    title: str
    role: Role
    topology: str
    engine: Mapping[str, Any] = field(default_factory=dict)
    set_: bool = False

    def of(self, scenario: Scenario) -> Scenario:
        """A scenario decided this way."""
        engine = scenario.engine | dict(self.engine)
        return msgspec.structs.replace(scenario, topology=self.topology, engine=engine)


AT_ONCE: dict[str, Any] = {"affinity_wait_s": 0.0}
"""The paper's candidates are replicas that are available: no request waits for one while another is."""

PROBED: dict[str, Any] = {"allowance": "probed", **AT_ONCE}
ONE: dict[str, Any] = {"allowance": "one", **AT_ONCE}
"""Both forms of its SP-P."""


def _blind(policy: str, **engine: Any) -> dict[str, Any]:
    """A rule as others ship it: every request is pushed on arrival."""
    return {"policy": policy, "push": "blind"} | engine


SYSTEMS = (
    System("G-round_robin", "round robin", "global", "global", _blind("round_robin")),
    System("G-least_load", "least load", "global", "global", _blind("least_load")),
    System("G-ring", "consistent hashing (CH)", "global", "global", _blind("ring")),
    System(
        "G-cache_aware",
        "SGLang's rule (fallback: least load)",
        "global",
        "global",
        _blind("cache_aware", cache_aware_fallback="least_load"),
    ),
    System(
        "G-cache_aware-old",
        "SGLang's rule until 2025 (fallback: smallest tree)",
        "global",
        "global",
        _blind("cache_aware", cache_aware_fallback="smallest_tree"),
    ),
    System("L-least_load", "least load per region", "local", "local", _blind("least_load")),
    System(
        "L-prefix-probed",
        "the paper's balancer per region",
        "local",
        "local",
        {"policy": "prefix", **PROBED},
    ),
    System(
        "L-prefix-one",
        "the same with debits",
        "local",
        "local",
        {"policy": "prefix", **ONE},
    ),
    System("L-prefix", "prefix tree, our gate, per region", "local", "local", {"policy": "prefix"}),
    System(LOCAL, "our default per region", "local", "local", {"policy": "predictive"}),
    System(
        "SkyLB-probed",
        "the paper: prefix tree, SP-P by the probe alone",
        "published",
        "skylb",
        {"policy": "prefix", **PROBED},
    ),
    System(
        "SkyLB-CH-probed",
        "the paper: hash ring, SP-P by the probe alone",
        "published",
        "skylb",
        {"policy": "ring", **PROBED},
    ),
    System(
        "SkyLB-one",
        "prefix tree, SP-P with debits",
        "published",
        "skylb",
        {"policy": "prefix", **ONE},
    ),
    System(
        "SkyLB-CH-one",
        "hash ring, SP-P with debits",
        "published",
        "skylb",
        {"policy": "ring", **ONE},
    ),
    System("prefix", "prefix tree, our gate", "ours", "skylb", {"policy": "prefix"}),
    System(OURS, "our default", "ours", "skylb", {"policy": "predictive"}),
    System(
        SHIPPED_HOLD,
        "our default, which refuses after 30 s as shipped",
        "ours",
        "skylb",
        {"policy": "predictive", "hold_timeout_s": EngineSettings().hold_timeout_s},
    ),
    System(CENTRAL, "our default in one global balancer", "central", "global", {"policy": "predictive"}),
)

PER_REGION = ("L-prefix-probed", "L-prefix-one", LOCAL)
"""Region-local balancers: the paper's, with both forms of its SP-P, and ours."""

OF_REPLICAS = frozenset({*PER_REGION, "SkyLB-probed", "SkyLB-one", OURS, CENTRAL})
"""What is compared over numbers of replicas."""

PUSHING = (
    System("BP", "blind pushing, prefix tree", "published", "local", _blind("prefix")),
    System(
        "BP, SGLang's rule",
        "blind pushing, SGLang's rule",
        "global",
        "local",
        _blind("cache_aware", cache_aware_fallback="least_load"),
    ),
    System(
        "SP-O 24",
        "at most 24 outstanding",
        "published",
        "local",
        {"policy": "prefix", "push": "outstanding", "outstanding_max": 24, **AT_ONCE},
    ),
    System(
        "SP-O 50",
        "at most 50 outstanding",
        "published",
        "local",
        {"policy": "prefix", "push": "outstanding", "outstanding_max": 50, **AT_ONCE},
    ),
    System(
        "SP-P probed",
        "none pending at the last probe, as published",
        "published",
        "local",
        {"policy": "prefix", **PROBED},
    ),
    System(
        "SP-P one",
        "none pending, own pushes counted",
        "published",
        "local",
        {"policy": "prefix", **ONE},
    ),
    System("knee", "our gate, prefix tree", "ours", "local", {"policy": "prefix"}),
    System(OURS, "our gate and default", "ours", "local", {"policy": "predictive"}),
    System("predictive, blind", "our default without gate", "ours", "local", _blind("predictive")),
)
"""The ablation of pushing: one region, one balancer."""

BY_NAME = {system.name: system for system in SYSTEMS}


def fault_of(engine: Mapping[str, Any]) -> str | None:
    """Why this build of the engine cannot run these settings; ``None``: it can."""
    unknown = sorted(engine.keys() - EngineSettings.model_fields.keys())
    if unknown:
        return f"no setting {', '.join(unknown)}"
    for name, value in engine.items():
        known = _literals(EngineSettings.model_fields[name].annotation)
        if known and value not in known:
            return f"no {name} = {value}"
    try:
        Scenario(engine=dict(engine)).engine_settings()
    except ConfigError as error:
        return "; ".join(error.faults)
    return None


def _literals(annotation: Any) -> tuple[Any, ...]:
    """The values that a setting may have, where they are listed."""
    return tuple(value for value in get_args(annotation) if isinstance(value, str))


def known(systems: Iterable[System]) -> tuple[list[System], list[str]]:
    """The systems that this build can run, and a note for each other one."""
    found, notes = [], []
    for system in systems:
        fault = fault_of(system.engine)
        if fault is None:
            found.append(system)
        else:
            notes.append(f"{system.name} is left out: this build has {fault}")
    return found, notes


def named(text: str) -> list[System]:
    """The systems of a list of names; empty: all.

    Raises:
        ValueError: a name is unknown.
    """
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise ValueError(f"no system {', '.join(unknown)}: expected some of {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names] if names else list(SYSTEMS)


def varied(systems: Iterable[System], settings: Iterable[str], *, everywhere: bool) -> list[System]:
    """Adds a row for each combination of settings given as ``engine.key=v1,v2``.

    Args:
        systems: the rows without them.
        settings: engine settings to change.
        everywhere: also for the default per region and in one global balancer, not for ours alone.

    Raises:
        ValueError: a setting is malformed, or this build cannot run it.
    """
    systems = list(systems)
    given = dict(parse_sweep(text) for text in settings)
    keys = [name.removeprefix("engine.") for name in given]
    bases = (OURS, LOCAL, CENTRAL) if everywhere else (OURS,)
    found = []
    for system in systems:
        found.append(system)
        if not given or system.name not in bases:
            continue
        for values in product(*given.values()):
            engine = dict(zip(keys, values, strict=True))
            if fault := fault_of(engine):
                raise ValueError(f"--set: {fault}")
            label = " ".join(f"{key}={value}" for key, value in engine.items())
            name = f"{system.name} {label}"
            found.append(
                replace(system, name=name, title=label, engine={**system.engine, **engine}, set_=True)
            )
    return found
