"""The paper's figures, and ours beside them: what reproduces, and where not, why."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bench.paper.cells import EVEN, PUSH, SKEW, TABLE
from bench.paper.figures import mean, ratio
from bench.paper.runs import Found, SystemRows
from bench.paper.systems import OURS
from bench.paper.workloads import CASES

RR, LL, CH, SGL = "G-round_robin", "G-least_load", "G-ring", "G-cache_aware"
BASELINES = (RR, LL, CH, SGL)

LAYOUT = "444"
"""The paper's replicas."""

Range = tuple[float, float]

PUBLISHED = ("SkyLB-probed", "SkyLB-one")
"""SkyLB as published: the first of them that has run."""


@dataclass(frozen=True)
class Claim:
    """A figure of the paper.

    Attributes:
        text: what it is.
        said: the paper's figure as it says it.
        paper: the range in which it counts as reproduced.
        of: the same of ours with one system as SkyLB, by workload or the like; empty where it has not run.
        why: why ours differs, where it does.
        neutral: on which side of it the claim has its sign; ``None``: it has none.
    """

    text: str
    said: str
    paper: Range
    of: Callable[[Found, str], dict[str, float]]
    why: str
    neutral: float | None = 1.0


def span(values: Mapping[str, float]) -> Range:
    """The smallest and the largest of some figures."""
    return min(values.values()), max(values.values())


def verdict(values: Mapping[str, float], claim: Claim) -> str:
    """Whether figures reproduce a claim."""
    if not values:
        return "-"
    (low, high), (least, most) = span(values), claim.paper
    if claim.neutral is None:
        inside = [least <= value <= most for value in values.values()]
        return "yes" if all(inside) else "partly" if low <= most and high >= least else "no"
    up = least + most > 2 * claim.neutral
    reached = [value >= least if up else value <= most for value in values.values()]
    if all(reached):
        return "yes"
    signs = [value > claim.neutral if up else value < claim.neutral for value in values.values()]
    if any(reached):
        return f"partly ({sum(reached)} of {len(reached)})"
    return "sign only" if all(signs) else f"sign in {sum(signs)} of {len(signs)}" if any(signs) else "no"


def as_text(values: Mapping[str, float]) -> str:
    """A range as people read it."""
    if not values:
        return "-"
    low, high = span(values)
    texts = [f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def published(found: Found) -> str:
    """The row that stands for SkyLB as published."""
    table = found.part(TABLE)
    return next(
        (name for name in PUBLISHED if any(name in systems for systems in table.values())), PUBLISHED[0]
    )


def _cells(found: Found, kind: str | None = None) -> Iterator[tuple[str, SystemRows]]:
    """The cells of the paper's own layout and users."""
    kinds = {case.name: case.kind for case in CASES if case.name != "wildchat-skewed"}
    for cell, systems in found.part(TABLE).items():
        name, _, layout = cell.rpartition(" ")
        if layout == LAYOUT and name in kinds and kind in {None, kinds[name]}:
            yield name, systems


def _ratios(
    name: str, others: tuple[str, ...], kind: str | None = None, *, inverse: bool = False
) -> Callable[[Found, str], dict[str, float]]:
    """SkyLB's figure over each baseline's, or the inverse; by workload and baseline."""

    def of(found: Found, system: str) -> dict[str, float]:
        values = {}
        for case, systems in _cells(found, kind):
            for other in others:
                got = ratio(systems.get(system, []), systems.get(other, []), name, inverse=inverse)
                if got is not None:
                    values[f"{case}, {other}"] = got.mean
        return values

    return of


def _figures(
    name: str, system: str | None, kind: str | None = None
) -> Callable[[Found, str], dict[str, float]]:
    """A figure itself; of a system other than SkyLB if one is named."""

    def of(found: Found, ours: str) -> dict[str, float]:
        wanted = system or ours
        return {
            case: mean(systems[wanted], name) for case, systems in _cells(found, kind) if wanted in systems
        }

    return of


def _tree_over_ring(found: Found, system: str) -> dict[str, float]:
    """The tree's throughput over that of the ring with the same gate."""
    other = system.replace("SkyLB-", "SkyLB-CH-")
    return _ratios("tokens_per_s", (other,))(found, system) if other != system else {}


def _pushing(
    name: str, others: tuple[str, ...], *, inverse: bool = False
) -> Callable[[Found, str], dict[str, float]]:
    """A rule's figure over those of other rules in the ablation, with the paper's 30 users."""

    def of(found: Found, system: str) -> dict[str, float]:
        systems = found.part(PUSH).get("30 users", {})
        ours = OURS if system == OURS else system.replace("SkyLB-", "SP-P ")
        got = {
            other: ratio(systems.get(ours, []), systems.get(other, []), name, inverse=inverse)
            for other in others
        }
        return {f"30 users, {other}": value.mean for other, value in got.items() if value is not None}

    return of


def _diurnal(found: Found, system: str) -> dict[str, float]:
    """Throughput over that of the same rule per region, with 9 and 12 replicas."""
    local = system.replace("SkyLB-", "L-prefix-") if system != OURS else f"L-{OURS}"
    values = {}
    for count in (9, 12):
        systems = found.part(SKEW).get(f"{EVEN} {count}", {})
        got = ratio(systems.get(system, []), systems.get(local, []), "tokens_per_s")
        if got is not None:
            values[f"{count} replicas"] = got.mean
    return values


BOUND = (
    "In closed loop, most of a request's time is its answer, which no balancer makes shorter. "
    "Round robin and least load lose on trees, where their caches miss."
)
PUSHED = (
    "In this model of vLLM a replica queues without harm, because it reserves KV as answers grow. "
    "Blind pushing then loses nothing by waiting there, and placement does the work. Likely, not tried: "
    "the paper's SGLang reserves KV by max_tokens, and its blind pusher was another program."
)

CLAIMS = (
    Claim(
        "throughput over the global baselines",
        "1.12 to 2.06",
        (1.12, 2.06),
        _ratios("tokens_per_s", BASELINES),
        BOUND,
    ),
    Claim(
        "throughput over round robin",
        "1.12 to 2.06",
        (1.12, 2.06),
        _ratios("tokens_per_s", (RR,)),
        BOUND,
    ),
    Claim(
        "median TTFT, times lower than the baselines'",
        "1.74 to 6.30",
        (1.74, 6.30),
        _ratios("ttft_p50_s", BASELINES, inverse=True),
        "At balanced load much of what is gained is the round trip to us, which every request of the other "
        "regions saves; it bounds the factor.",
    ),
    Claim(
        "median E2E, times lower than the baselines'",
        "1.05 to 2.14",
        (1.05, 2.14),
        _ratios("e2e_p50_s", BASELINES, inverse=True),
        BOUND,
    ),
    Claim(
        "conversations: least load's throughput over SkyLB's",
        "0.97",
        (0.95, 0.99),
        lambda found, system: {
            case: 1 / value for case, value in _ratios("tokens_per_s", (LL,), "chat")(found, system).items()
        },
        "Least load loses more where conversations have several turns.",
        neutral=None,
    ),
    Claim(
        "uniform trees: CH's throughput over SkyLB's",
        "1.02",
        (0.97, 1.05),
        lambda found, system: {
            case: 1 / value
            for case, value in _ratios("tokens_per_s", (CH,), "tree")(found, system).items()
            if case.startswith("tot")
        },
        "",
        neutral=None,
    ),
    Claim(
        "conversations: hit rate",
        "0.37 to 0.47",
        (0.37, 0.47),
        _figures("hit_rate", None, "chat"),
        "",
        neutral=None,
    ),
    Claim("trees: hit rate", "0.90", (0.85, 0.95), _figures("hit_rate", None, "tree"), "", neutral=None),
    Claim("tree over ring variant, throughput", "1.013 to 1.082", (1.013, 1.082), _tree_over_ring, BOUND),
    Claim(
        "SP-P over BP: throughput",
        "1.27",
        (1.27, 1.27),
        _pushing("tokens_per_s", ("BP",)),
        PUSHED,
    ),
    Claim(
        "SP-P over BP: P90 TTFT, times lower",
        "18.5",
        (18.5, 18.5),
        _pushing("ttft_p90_s", ("BP",), inverse=True),
        PUSHED,
    ),
    Claim(
        "SP-P over SP-O: throughput",
        "1.4",
        (1.4, 1.4),
        _pushing("tokens_per_s", ("SP-O 24", "SP-O 50")),
        PUSHED,
    ),
    Claim(
        "skewed users: throughput over region-local, equal replicas",
        "1.07 to 1.18",
        (1.07, 1.18),
        _diurnal,
        "",
    ),
)
"""Claims about SkyLB; ours stands in the same place."""

BASELINE_CLAIMS = (
    Claim(
        "conversations: hit rate of round robin",
        "0.11 to 0.17",
        (0.11, 0.17),
        _figures("hit_rate", RR, "chat"),
        "",
        None,
    ),
    Claim(
        "conversations: hit rate of least load",
        "0.28 to 0.31",
        (0.28, 0.31),
        _figures("hit_rate", LL, "chat"),
        "",
        None,
    ),
    Claim("trees: hit rate of round robin", "0.59", (0.54, 0.64), _figures("hit_rate", RR, "tree"), "", None),
    Claim("trees: hit rate of least load", "0.59", (0.54, 0.64), _figures("hit_rate", LL, "tree"), "", None),
    Claim("load spread of CH", "2.5 to 4.9", (2.5, 4.9), _figures("load_spread", CH), "", None),
    Claim("load spread of SGLang's rule", "2.3 to 5.1", (2.3, 5.1), _figures("load_spread", SGL), "", None),
)
"""Claims about the baselines themselves: how alike the set-ups are."""
