"""Runs of one seed, and the figures that they give."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.fair.cases import Task, flood, polite, run, scenario
from skylb.tools.sim.result import Result, Section

FAILED_S = 120.0
"""A request that fails counts as a time to first token of so much."""

HEADROOMS = (0.0, 0.1, 0.2, 0.45, 0.6)
"""Besides the default: what else the frontier shows."""


@dataclass(frozen=True)
class Figures:
    """Of one run. "Others" are the nine.

    Attributes:
        p90_s: of the others' times to first token.
        refused: requests of the others that failed.
        tokens_per_s: prompt tokens and twice the generated ones, of all.
        hit_rate: share of prompt tokens found cached, of all.
        others_hit_rate: of the others' prompts.
        tenth_hit_rate: of the tenth tenant's.
        gap_tokens: most by which one tenant was served more than another while both waited.
        bound_tokens: what docs/ALGORITHM.md allows.
    """

    p90_s: float
    refused: int
    tokens_per_s: float
    hit_rate: float
    others_hit_rate: float
    tenth_hit_rate: float
    gap_tokens: float = 0.0
    bound_tokens: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """One seed.

    Attributes:
        alone: without the tenth tenant.
        filled: the tenth sends politely what the nine leave.
        fair: it floods; ``tenant_rule`` is ``"fair"``.
        unfair: it floods; ``tenant_rule`` is ``"none"``.
        frontier: fair, by other ``tenant_headroom_ratio``.
    """

    alone: Figures
    filled: Figures
    fair: Figures
    unfair: Figures
    frontier: Mapping[float, Figures]


def outcome(given: tuple[Task, dict[str, object]]) -> Outcome:
    """Runs all that one seed needs, with these settings of the engine in every fair run."""
    task, engine = given
    fair: dict[str, object] = {"tenant_rule": "fair", **engine}

    def flooded(**settings: object) -> Figures:
        return figures(run(scenario(task, flood(task), **settings)))

    frontier = {} if task.quick else {ratio: {**fair, "tenant_headroom_ratio": ratio} for ratio in HEADROOMS}
    return Outcome(
        alone=figures(run(scenario(task, None, **fair))),
        filled=figures(run(scenario(task, polite(task), **fair))),
        fair=flooded(**fair),
        unfair=flooded(tenant_rule="none"),
        frontier={ratio: flooded(**settings) for ratio, settings in frontier.items()},
    )


def figures(result: Result) -> Figures:
    """The figures of one run."""
    others = [of for name, of in result.tenants.items() if name.startswith("steady")]
    tenth = [of for name, of in result.tenants.items() if not name.startswith("steady")]
    fairness = result.fairness
    return Figures(
        p90_s=quantile(others, 0.9),
        refused=sum(of.failures for of in others),
        tokens_per_s=result.total.throughput_tokens_per_s,
        hit_rate=hit_rate([*others, *tenth]),
        others_hit_rate=hit_rate(others),
        tenth_hit_rate=hit_rate(tenth),
        gap_tokens=fairness.gap_tokens if fairness else 0.0,
        bound_tokens=fairness.bound_tokens if fairness else 0.0,
    )


def quantile(sections: Sequence[Section], q: float) -> float:
    """Of the times to first token of all of them, in seconds; those that failed count as `FAILED_S`."""
    counts: Counter[float] = Counter()
    for section in sections:
        counts.update(dict(section.ttft_s.histogram))
        counts[FAILED_S] += section.failures + section.unfinished
    wanted, seen = q * counts.total(), 0
    for bound, count in sorted(counts.items()):
        seen += count
        if seen >= wanted:
            return bound
    return FAILED_S


def hit_rate(sections: Sequence[Section]) -> float:
    """Share of their prompt tokens that were found cached."""
    tokens = sum(of.input_tokens for of in sections)
    return sum(of.cached_tokens for of in sections) / max(1, tokens)
