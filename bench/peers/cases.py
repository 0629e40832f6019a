"""What is measured: fleets, users, and which rivals stand before them in which way.

Times are the replicas' own: at a scale of 0.25, four of their seconds pass in one.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from bench.peers.rivals import BY_NAME, SKYLB, Rival
from skylb.tools.sim.made import Plan, make
from skylb.tools.sim.workload import Arena, SharedPrompt

Layout = Literal["one", "peers", "global", "local", "all"]
"""One proxy in one region; a SkyLB in each region; one router in the first region; one in each region, before
that region's replicas; the same before all replicas."""

LAYOUTS: dict[Layout, str] = {
    "one": "one region",
    "peers": "three peers",
    "global": "one router, in us",
    "local": "one router per region",
    "all": "one router per region, all replicas",
}

SCALE = 0.25
PROFILE = "l4-8b"
WORKLOAD: Arena = SharedPrompt(tokens_max=16_000, think_s=5.0)
USUAL_DRAIN_S = 50.0
"""About how long the last answers take after the last request."""

REPEATS = 3
ORDER_SEED = 1635
"""With it, no row follows the same one in two repeats of a case."""


@dataclass(frozen=True)
class Case:
    """One fleet and its users.

    Attributes:
        replicas: by region; the first region is where a global router stands.
        users: at once, by group; a group is its region's name, with a number where a region has several.
        scale: factor on all times.
        warmup_s, measured_s, drain_s: of the replicas' time. The last is for answers after the last
            request, and ends with the last answer.
        rivals: in this order.
        layouts: of rivals before several regions, by name.
        repeats_max: so many repeats are enough.
    """

    name: str
    title: str
    replicas: dict[str, int]
    users: dict[str, int]
    rivals: tuple[str, ...]
    layouts: dict[str, tuple[Layout, ...]] = field(default_factory=dict)
    scale: float = SCALE
    warmup_s: float = 16.0
    measured_s: float = 96.0
    drain_s: float = 60.0
    repeats_max: int = REPEATS

    @property
    def regions(self) -> list[str]:
        """Their names."""
        return list(self.replicas)

    def region(self, group: str) -> str:
        """Where a group of users is."""
        return group.rstrip("0123456789")

    def wall_s(self) -> float:
        """How long the load lasts."""
        return (self.warmup_s + self.measured_s) * self.scale


@dataclass(frozen=True)
class Entry:
    """One row to be: a rival in a case."""

    case: Case
    rival: Rival
    layout: Layout

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.case.name}/{self.rival.name}/{self.layout}"

    def estimate_s(self) -> float:
        """About how long one run of it takes, start and end included."""
        return self._takes_s(min(USUAL_DRAIN_S, self.case.drain_s))

    def longest_s(self) -> float:
        """The same if an answer does not end."""
        return self._takes_s(self.case.drain_s)

    def _takes_s(self, drain_s: float) -> float:
        sites = 1 if self.layout in {"one", "global"} else len(self.case.regions)
        start_s = 2.0 + (8.0 + 6.0 * sites if self.rival.name == "litellm" else 0.5 * sites)
        return self.case.wall_s() + drain_s * self.case.scale + start_s


_THREE = {"us": 2, "eu": 2, "asia": 2}

CASES = (
    Case(
        "one",
        "One region: 4 replicas, 40 users",
        {"local": 4},
        {"local": 40},
        (SKYLB, "vllm-router", "vllm-router-hash", "sglang-router", "smg", "smg-low", "haproxy", "nginx"),
    ),
    Case(
        "three",
        "Three regions, most users in one: 2 replicas each, 36, 12 and 12 users in us, eu and asia",
        _THREE,
        {"us1": 12, "us2": 12, "us3": 12, "eu": 12, "asia": 12},
        (SKYLB, "vllm-router", "smg", "haproxy"),
        {"vllm-router": ("global",), "smg": ("global", "local", "all"), "haproxy": ("global", "all")},
    ),
    Case(
        "even",
        "Three regions, users spread evenly: 2 replicas and 20 users each",
        _THREE,
        {"us": 20, "eu": 20, "asia": 20},
        (SKYLB, "vllm-router", "smg", "haproxy"),
        {"vllm-router": ("local",), "smg": ("local",), "haproxy": ("local",)},
        measured_s=36.0,
    ),
    Case(
        "life",
        "One region in real time: 4 replicas, 40 users",
        {"local": 4},
        {"local": 40},
        (SKYLB, "smg", "litellm", "haproxy"),
        scale=1.0,
        warmup_s=8.0,
        measured_s=24.0,
        repeats_max=1,
    ),
)


QUICK_RIVALS = {
    "one": (SKYLB, "vllm-router", "smg", "haproxy"),
    "three": (SKYLB, "smg"),
}
"""Those of a quick run in faster time, by case."""


def quick(case: Case) -> Case | None:
    """The same in a fraction of the time, with fewer rivals; ``None`` if it is left out."""
    drain_s = 24.0
    if case.scale == 1.0:
        return replace(case, rivals=(SKYLB, "litellm"), warmup_s=6.0, measured_s=18.0, drain_s=drain_s)
    if case.name not in QUICK_RIVALS:
        return None
    share = 0.4
    return replace(
        case,
        rivals=tuple(name for name in case.rivals if name in QUICK_RIVALS[case.name]),
        warmup_s=case.warmup_s * share,
        measured_s=case.measured_s * share,
        drain_s=drain_s,
    )


def entries(case: Case) -> Iterator[Entry]:
    """The rows of a case."""
    for name in case.rivals:
        if len(case.regions) == 1:
            yield Entry(case, BY_NAME[name], "one")
        elif name == SKYLB:
            yield Entry(case, BY_NAME[name], "peers")
        else:
            for layout in case.layouts[name]:
                yield Entry(case, BY_NAME[name], layout)


def shuffled(rows: list[Entry], repeat: int) -> list[Entry]:
    """In an order of this repeat's own, so that none is always first or always follows the same."""
    if not rows:
        return []
    first = random.Random(ORDER_SEED).sample(rows, len(rows))[repeat % len(rows)]
    rest = [row for row in rows if row is not first]
    return [first, *random.Random(ORDER_SEED + repeat + 1).sample(rest, len(rest))]


def workload(case: Case, seed: int, directory: Path) -> Path:
    """The requests of a case as a file; the same for all rivals."""
    path = directory / f"{case.name}-{seed}.jsonl"
    if not path.exists():
        shares = {group: float(users) for group, users in case.users.items()}
        turns = make(WORKLOAD, Plan(shares, dict(case.users), 0.0), seed=seed)
        path.write_bytes(b"\n".join(map(msgspec.json.encode, turns)))
    return path
