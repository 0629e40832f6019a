"""What is measured: fleets, users, and which rivals stand before them in which way.

Times are the replicas' own: at a scale of 0.25, four of their seconds pass in one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from bench.peers.rivals import BY_NAME, SKYLB, Rival
from skylb.tools.sim.made import Plan, make
from skylb.tools.sim.workload import Arena, SharedPrompt

Layout = Literal["one", "peers", "global", "local"]
"""One proxy in one region; a SkyLB in each region; one router in the first region; one in each on its own."""

LAYOUTS: dict[Layout, str] = {
    "one": "one region",
    "peers": "three peers",
    "global": "one router, in us",
    "local": "one router per region",
}

SCALE = 0.25
PROFILE = "l4-8b"
WORKLOAD: Arena = SharedPrompt(tokens_max=16_000, think_s=5.0)
DRAIN_S = 16.0
SLOW_SHARE = 0.4
"""Of the replicas' time, for a rival that runs in real time where others run faster."""


@dataclass(frozen=True)
class Case:
    """One fleet and its users.

    Attributes:
        replicas: by region; the first region is where a global router stands.
        users: at once, by group; a group is its region's name, with a number where a region has several.
        scale: factor on all times.
        warmup_s, measured_s: of the replicas' time.
        rivals: in this order.
        layouts: of all rivals but SkyLB.
    """

    name: str
    title: str
    replicas: dict[str, int]
    users: dict[str, int]
    rivals: tuple[str, ...]
    layouts: tuple[Layout, ...] = ("one",)
    scale: float = SCALE
    warmup_s: float = 22.0
    measured_s: float = 72.0

    @property
    def regions(self) -> list[str]:
        """Their names."""
        return list(self.replicas)

    def region(self, group: str) -> str:
        """Where a group of users is."""
        return group.rstrip("0123456789")

    def of(self, rival: Rival) -> "Case":
        """As this rival runs it: one that cannot keep up with faster time gets less of it."""
        if self.scale >= rival.scale_min:
            return self
        share = SLOW_SHARE
        return replace(
            self,
            scale=rival.scale_min,
            warmup_s=self.warmup_s * share,
            measured_s=self.measured_s * share,
        )

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
        sites = len(self.case.regions) if self.layout in {"peers", "local"} else 1
        start_s = 6.0 + (8.0 + 6.0 * sites if self.rival.name == "litellm" else 0.5 * sites)
        return self.case.of(self.rival).wall_s() + DRAIN_S * self.case.of(self.rival).scale / 2 + start_s


_ALL = (SKYLB, "vllm-router", "sglang-router", "smg", "litellm", "haproxy", "nginx")
_THREE = {"us": 2, "eu": 2, "asia": 2}

CASES = (
    Case(
        "one",
        "One region: 4 replicas, 40 users",
        {"local": 4},
        {"local": 40},
        ("skylb", "vllm-router", "sglang-router", "smg", "smg-low", "haproxy", "nginx"),
    ),
    Case(
        "three",
        "Three regions, most users in one: 2 replicas each, 36, 12 and 12 users in us, eu and asia",
        _THREE,
        {"us1": 12, "us2": 12, "us3": 12, "eu": 12, "asia": 12},
        _ALL,
        ("global", "local"),
    ),
    Case(
        "even",
        "Three regions, users spread evenly: 2 replicas and 20 users each",
        _THREE,
        {"us": 20, "eu": 20, "asia": 20},
        (SKYLB, "smg", "haproxy"),
        ("local",),
    ),
    Case(
        "life",
        "One region in real time: 4 replicas, 40 users",
        {"local": 4},
        {"local": 40},
        tuple(name for name in _ALL if name != "sglang-router"),  # smg is what became of it
        scale=1.0,
        warmup_s=8.0,
        measured_s=28.0,
    ),
)


QUICK_RIVALS = {
    "one": (SKYLB, "vllm-router", "sglang-router", "smg", "haproxy", "nginx"),
    "three": (SKYLB, "smg"),
}
"""Those of a quick run in faster time, by case."""


def quick(case: Case) -> Case | None:
    """The same in a fraction of the time, with fewer rivals; ``None`` if it is left out."""
    if case.scale == 1.0:
        return replace(case, rivals=(SKYLB, "litellm"), warmup_s=6.0, measured_s=18.0)
    if case.name not in QUICK_RIVALS:
        return None
    share = 0.4
    return replace(
        case,
        rivals=tuple(name for name in case.rivals if name in QUICK_RIVALS[case.name]),
        warmup_s=case.warmup_s * share,
        measured_s=case.measured_s * share,
    )


def entries(case: Case) -> Iterator[Entry]:
    """The rows of a case."""
    for name in case.rivals:
        if len(case.regions) == 1:
            yield Entry(case, BY_NAME[name], "one")
        elif name == SKYLB:
            yield Entry(case, BY_NAME[name], "peers")
        else:
            for layout in case.layouts:
                yield Entry(case, BY_NAME[name], layout)


def rotated(rows: list[Entry], repeat: int) -> list[Entry]:
    """Another one is first each time, so that none always follows the same."""
    at = repeat * 3 % len(rows) if rows else 0
    return rows[at:] + rows[:at]


def workload(case: Case, seed: int, directory: Path) -> Path:
    """The requests of a case as a file; the same for all rivals."""
    path = directory / f"{case.name}-{seed}.jsonl"
    if not path.exists():
        shares = {group: float(users) for group, users in case.users.items()}
        turns = make(WORKLOAD, Plan(shares, dict(case.users), 0.0), seed=seed)
        path.write_bytes(b"\n".join(map(msgspec.json.encode, turns)))
    return path
