"""Ways to decide: every policy as it ships and behind SkyLB's gate, with settings to try.

Settings and values that this version of the engine does not know are left out, so that the list may be ahead
of the engine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

import msgspec

from skylb.config import EngineSettings, Policy
from skylb.tools.sim.scenario import Replicas, Scenario

POLICIES: tuple[str, ...] = get_args(Policy)
DEFAULT: str = EngineSettings().policy
FLOOR = "floor"
FLOOR_FACTOR = 8
"""So many times the replicas: what the engines alone take, where nothing stands in a request's way."""

GATED, SHIPPED = "gated", "as shipped"
"""A rival behind SkyLB's gate, and as its own project ships it: every request is pushed at once."""

BLIND = {"push": "blind"}


@dataclass(frozen=True)
class Variant:
    """One way to decide.

    Attributes:
        rule: who decides: a policy, or one of `PAPER`.
        form: `GATED`, `SHIPPED`, or another name of what differs; empty: the default as SkyLB ships it.
        engine: settings that differ from those that SkyLB ships.
        replicas_factor: so many times the replicas.
        tried: settings that nobody ships, tried for the upper bound.
    """

    rule: str
    form: str = ""
    engine: Mapping[str, Any] = field(default_factory=dict, hash=False)
    replicas_factor: int = 1
    tried: bool = False

    @property
    def name(self) -> str:
        """How it is told from the others."""
        return f"{self.rule}, {self.form}" if self.form else self.rule

    def of(self, scenario: Scenario) -> Scenario:
        """A scenario decided this way."""
        regions = [
            msgspec.structs.replace(region, replicas=[self._more(replicas) for replicas in region.replicas])
            for region in scenario.regions
        ]
        return msgspec.structs.replace(scenario, engine=scenario.engine | dict(self.engine), regions=regions)

    def _more(self, replicas: Replicas) -> Replicas:
        return msgspec.structs.replace(replicas, count=replicas.count * self.replicas_factor)


def known(engine: Mapping[str, Any]) -> bool:
    """Whether this version of the engine has all these settings, and these values of them."""
    fields = EngineSettings.model_fields
    for name, value in engine.items():
        if name not in fields:
            return False
        choices = _choices(fields[name].annotation)
        if choices and value not in choices:
            return False
    return True


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


PAPER: dict[str, dict[str, Any]] = {
    "SkyLB as published": {"policy": "prefix", "allowance": "probed", "affinity_wait_s": 0.0},
    "SkyLB-CH as published": {"policy": "ring", "allowance": "probed", "affinity_wait_s": 0.0},
    "SkyLB, one pending": {"policy": "prefix", "allowance": "one", "affinity_wait_s": 0.0},
}
"""The paper's rules: its trie and its ring behind SP-P. ``one`` is a stricter gate: one pending request. Full
replicas are no candidates, so no request waits for one while another has room."""

OLD_RULES: dict[str, dict[str, Any]] = {
    "cache_aware, smallest tree": {"policy": "cache_aware", "cache_aware_fallback": "smallest_tree"},
}
"""Rules that a rival had before: SGLang's, until December 2025, chose the smallest tree under imbalance."""


def rivals() -> list[Variant]:
    """All rivals: each policy but the default, and each former rule, in both forms; and the paper's."""
    rules: dict[str, dict[str, Any]] = {
        policy: {"policy": policy} for policy in POLICIES if policy != DEFAULT
    }
    rules |= OLD_RULES
    found = [
        Variant(rule, form, engine | change)
        for rule, engine in rules.items()
        for form, change in ((GATED, {}), (SHIPPED, BLIND))
    ]
    found += [Variant(rule, "", engine) for rule, engine in PAPER.items()]
    return [variant for variant in found if known(variant.engine)]


def ours() -> Variant:
    """The default as SkyLB ships it."""
    return Variant(DEFAULT, "", {"policy": DEFAULT})


def floor() -> Variant:
    """The default on many more replicas, where no request waits for another."""
    return Variant(FLOOR, "", {"policy": DEFAULT, "affinity_wait_s": 0.0}, replicas_factor=FLOOR_FACTOR)


TUNING: dict[str, list[dict[str, Any]]] = {
    "predictive": [
        {"delay_weight": 0.2},
        {"delay_weight": 0.1, "queue_weight": 4.0},
        {"evict_weight": 0.5},
        {"evict_weight": 3.0},
        {"queue_weight": 4.0},
        {"affinity_wait_s": 0.5},
        BLIND,
    ],
    "prefix": [{"match_threshold": share} for share in (0.1, 0.25, 0.75)],
    "bounded_ring": [{"ring_load_factor": factor} for factor in (1.1, 1.5, 2.0)],
    "cache_aware": [
        {"cache_aware_abs": most, "cache_aware_threshold": share} for most in (4, 16) for share in (0.1, 0.5)
    ],
    "smg": [{"smg_waiting_max": most, "smg_kv_ratio_max": share} for most in (1, 4) for share in (0.6, 0.95)],
    "llm_d": [
        {"llm_d_prefix_weight": prefix, "llm_d_kv_weight": kv} for prefix in (1.0, 6.0) for kv in (0.0, 2.0)
    ],
    "dynamo": [{"dynamo_prefill_weight": weight} for weight in (0.5, 2.0, 4.0)],
    "preble": [
        {"preble_window_s": window_s, "preble_balance_ratio": ratio}
        for window_s in (30.0, 180.0)
        for ratio in (1.5, 4.0)
    ],
    "gorgo": [{"gorgo_token_s": token_s} for token_s in (0.000_025, 0.000_5)],
}
"""Settings to try beside the shipped ones, for the upper bound."""


def tuned(variant: Variant) -> Iterator[Variant]:
    """The same rule and form with other settings."""
    for values in TUNING.get(variant.engine.get("policy", variant.rule), []):
        engine = dict(variant.engine) | values
        if known(engine) and engine != dict(variant.engine):
            text = " ".join(f"{name} {value}" for name, value in values.items())
            yield Variant(variant.rule, f"{variant.form} {text}".strip(), engine, tried=True)
