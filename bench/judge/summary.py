"""The judge's summary: one screen, and what it says of the aims."""

from collections.abc import Iterator
from statistics import fmean

from bench.judge.judgment import INTER_TOKEN, TTFT, Judgment, Verdict, geometric_mean
from bench.judge.plan import MAIN
from bench.judge.runs import LENGTHS
from bench.judge.variants import DEFAULT, FLOOR, SHIPPED
from skylb.tools.sim.summary import Interval
from skylb.tools.text import table

COLUMNS = (
    "case",
    "bound s",
    f"{DEFAULT}/s",
    "best rival/s",
    "",
    "ratio [by seed]",
    "P90 ms",
    "best as shipped",
    "",
    "change",
)
"""Sessions per second within the bound, then the P90 of the first token at 85 % of capacity."""
LEFT = 1

AIM_MEAN, AIM_THIRD, AIM_WORST = 1.10, 1.15, 0.98
AIM_P90 = 0.05
AIM_LENGTHS = 2.0
AIM_SENT = 30
"""Classes with fewer requests, over all seeds, say nothing."""

OVERLOAD = "130%"


def percent(found: Interval | None) -> str:
    """A change as people read it, with its interval."""
    if found is None:
        return "-"
    text = f"{found.mean:+.0%}"
    return f"{text} [{found.low:+.0%}, {found.high:+.0%}]" if found.low != found.high else text


def ms(value_s: float | None) -> str:
    """A duration in whole milliseconds."""
    return "-" if value_s is None else f"{value_s * 1e3:.0f}"


def row(verdict: Verdict) -> tuple[str, ...]:
    """A case's line of the summary."""
    rates = verdict.rates[TTFT]
    rival, ratio = verdict.best_rival(), verdict.ratio()
    shipped = verdict.best_shipped(MAIN)
    return (
        verdict.case.name,
        f"{verdict.case.ttft_bound_s:g}",
        rates[DEFAULT].text() if DEFAULT in rates else "-",
        rates[rival].text() if rival else "-",
        rival or "-",
        _ratio(ratio, verdict.ratios_by_seed()),
        ms(verdict.mean(MAIN, DEFAULT, "ttft_p90_s")),
        ms(verdict.mean(MAIN, shipped, "ttft_p90_s")) if shipped else "-",
        (shipped or "-").removesuffix(f", {SHIPPED}"),
        percent(verdict.change(MAIN, DEFAULT, shipped)) if shipped else "-",
    )


def _ratio(ratio: float | None, by_seed: list[float]) -> str:
    """A ratio, and the lowest and highest that a seed alone says."""
    if ratio is None:
        return "-"
    return f"{ratio:.3f} [{min(by_seed):.2f}, {max(by_seed):.2f}]" if len(by_seed) > 1 else f"{ratio:.3f}"


def summary(judgment: Judgment) -> str:
    """For the screen."""
    lines = [row(verdict) for verdict in judgment.verdicts.values()]
    return "\n".join([*table(COLUMNS, lines, left=LEFT), "", *aims(judgment)])


def aims(judgment: Judgment) -> list[str]:
    """What is aimed at, what was reached, and where it was missed."""
    return [*_rates(judgment), *_first_tokens(judgment), *_lengths(judgment)]


def _met(met: bool) -> str:
    return "met" if met else "MISSED"


def _rates(judgment: Judgment) -> Iterator[str]:
    for bound, title in ((TTFT, "P90 TTFT"), (INTER_TOKEN, "P99 inter-token time")):
        ratios = {
            name: ratio for name, verdict in judgment.verdicts.items() if (ratio := verdict.ratio(bound))
        }
        if not ratios:
            continue
        mean = geometric_mean(list(ratios.values()))
        ahead = [name for name, ratio in ratios.items() if ratio >= AIM_THIRD]
        behind = [f"{name} {ratio:.3f}" for name, ratio in ratios.items() if ratio < AIM_WORST]
        yield f"sessions/s that keep {title} within the bound, against the best rival in its better form:"
        yield f"  mean of {len(ratios)} cases {mean:.3f} (aim {AIM_MEAN:.2f}): {_met(mean >= AIM_MEAN)}"
        yield (
            f"  at least {AIM_THIRD} on {len(ahead)} of {len(ratios)} (aim: a third): "
            f"{_met(3 * len(ahead) >= len(ratios))}"
        )
        yield f"  below {AIM_WORST} (aim: nowhere): {', '.join(behind) or 'nowhere'}: {_met(not behind)}"


def _first_tokens(judgment: Judgment) -> Iterator[str]:
    worse, count = [], 0
    for name, verdict in judgment.verdicts.items():
        shipped = verdict.best_shipped(MAIN)
        found = verdict.change(MAIN, DEFAULT, shipped) if shipped else None
        if found is not None:
            count += 1
            if found.mean > AIM_P90:
                worse.append(f"{name} {found.mean:+.0%}")
    if count:
        yield f"P90 TTFT at {MAIN} of capacity, against the best rival as shipped:"
        places = ", ".join(worse) or "nowhere"
        yield f"  worse by more than {AIM_P90:.0%} (aim: nowhere): {places}: {_met(not worse)}"


def refused_shares(verdict: Verdict, load: str, name: str) -> dict[str, tuple[float, float]]:
    """Requests refused and sent, by class of length, over all seeds."""
    rows = list(verdict.rows.get(load, {}).get(name, {}).values())
    return {
        length: (
            sum(figures.get(f"refused_{length}", 0.0) for figures in rows),
            sum(figures.get(f"sent_{length}", 0.0) for figures in rows),
        )
        for length, _ in LENGTHS
    }


def _lengths(judgment: Judgment) -> Iterator[str]:
    """Who is refused under overload."""
    unfair, refused, count, overloaded = [], [], 0, False
    for name, verdict in judgment.verdicts.items():
        for load in verdict.loads():
            if load != OVERLOAD and not verdict.case.workload.burst_s:
                continue
            overloaded |= load == OVERLOAD
            shares = refused_shares(verdict, load, DEFAULT)
            parts = [failed / sent for failed, sent in shares.values() if sent >= AIM_SENT]
            count += 1
            if verdict.case.workload.burst_s and shares["more"][0]:
                refused.append(f"{name} {load} {shares['more'][0]:.0f} of {shares['more'][1]:.0f}")
            if max(parts, default=0.0) > AIM_LENGTHS * min(parts, default=0.0):
                texts = " / ".join(f"{part:.0%}" for part in parts)
                unfair.append(f"{name} {load} {texts}")
    if count:
        classes = ", ".join(unfair) or "none"
        loads = f"at {OVERLOAD} and in the burst" if overloaded else "in the burst"
        yield f"{DEFAULT} {loads}, refused prompts of below 2k / 2-8k / more tokens:"
        yield f"  a class more than twice as often as another: {classes}: {_met(not unfair)}"
        yield f"  prompts above 8k in the burst: {', '.join(refused) or 'none'}: {_met(not refused)}"


def floor_text(verdict: Verdict) -> str:
    """P90 of the floor at 85 %, and how far the default is above it."""
    found = verdict.mean(MAIN, FLOOR, "ttft_p90_s")
    mine = verdict.mean(MAIN, DEFAULT, "ttft_p90_s")
    if not found or mine is None:
        return "-"
    return f"{found * 1e3:.0f} ms ({mine / found - 1:+.0%})"


def ceiling_text(verdict: Verdict) -> str:
    """The best of all rules and settings."""
    name = verdict.ceiling()
    rates = verdict.rates[TTFT]
    if name is None or DEFAULT not in rates:
        return "-"
    share = rates[DEFAULT].per_s / rates[name].per_s
    return f"{rates[name].text()} ({name}); {DEFAULT} reaches {share:.1%}"


def mean_refused(verdict: Verdict, load: str, name: str) -> float:
    """Failed requests of a run, in the mean."""
    return fmean(row["refused"] for row in verdict.rows[load][name].values())
