"""The judge's tables: a summary for the screen, and all of it for bench/results/judge.md."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from bench.judge.cases import CASES, DEFAULT, FLOOR, ORACLE, POLICIES, SWITCHES
from bench.judge.runs import Figures
from skylb.tools.sim.summary import Interval, change, interval
from skylb.tools.text import table

if TYPE_CHECKING:
    from bench.judge.judgment import Judgment

HEAD = """\
# make judge

[EVALUATION.md](../../docs/EVALUATION.md#by-simulation) says how this was made and what the columns mean.

"""
AT = "85%"

Rows = list[Figures]
Variants = dict[str, Rows]


def values(rows: Rows, name: str) -> list[float]:
    """One figure by seed; missing ones are 0."""
    return [row[name] or 0.0 for row in rows]


def paired(rows: Rows, base: Rows, name: str) -> Interval | None:
    """By what share a figure differs from another variant's with the same seeds."""
    theirs = {row["seed"]: row[name] or 0.0 for row in base}
    ours = {row["seed"]: row[name] or 0.0 for row in rows}
    both = sorted(seed for seed in ours.keys() & theirs.keys() if seed is not None)
    if not both:
        return None
    return change([ours[seed] for seed in both], [theirs[seed] for seed in both])


def percent(found: Interval | None, *, bounds: bool = True) -> str:
    """A change as people read it."""
    if found is None:
        return "-"
    text = f"{found.mean:+.0%}"
    return f"{text} [{found.low:+.0%}, {found.high:+.0%}]" if bounds and found.low != found.high else text


def best_other(variants: Variants) -> str:
    """Of the policies that are not the default, tuned, the one with the best P90 TTFT."""
    others = [policy for policy in POLICIES if policy != DEFAULT and policy in variants]
    return min(others, key=lambda policy: fmean(values(variants[policy], "ttft_p90_s")))


def duel(variants: Variants) -> tuple[str, Interval | None, Interval | None]:
    """The best other policy, and the default's P90 TTFT and throughput against it."""
    other = best_other(variants)
    ours = variants[DEFAULT]
    return other, *(paired(ours, variants[other], name) for name in ("ttft_p90_s", "tokens_per_s"))


def _in_order(judgment: "Judgment") -> dict[str, dict[str, Variants]]:
    """Rows by case and load, both in the order of the document."""
    cases = [case.name for case in CASES if case.name in judgment.rows]
    loads = {case: sorted(judgment.rows[case], key=lambda share: float(share[:-1])) for case in cases}
    return {case: {share: judgment.rows[case][share] for share in loads[case]} for case in cases}


def _floor(variants: Variants) -> Interval | None:
    """P90 TTFT where nothing stands in a request's way, against the best other policy."""
    rows = variants.get(FLOOR)
    return paired(rows, variants[best_other(variants)], "ttft_p90_s") if rows else None


def summary(judgment: "Judgment") -> str:
    """The default against the best of the others, by case and load."""
    against = f"{DEFAULT}: P90 TTFT"
    columns = ("workload", "load", "seeds", "best other", against, "tokens/s", "floor", "regret of P90")
    lines = []
    for case, shares in _in_order(judgment).items():
        for share, variants in shares.items():
            if DEFAULT not in variants or len([p for p in POLICIES if p in variants]) < 2:
                continue
            other, ttft, rate = duel(variants)
            regret = paired(variants[DEFAULT], variants[ORACLE], "ttft_p90_s") if ORACLE in variants else None
            seeds = str(len(variants[DEFAULT]))
            floor = percent(_floor(variants), bounds=False)
            lines.append((case, share, seeds, other, percent(ttft), percent(rate), floor, percent(regret)))
    return "\n".join(table(columns, lines, left=4)) if lines else "too few policies to compare"


def document(judgment: "Judgment") -> str:
    """The page of all tables."""
    return HEAD + "\n".join(markdown(judgment)) + "\n"


def markdown(judgment: "Judgment") -> list[str]:
    """All tables."""
    about = judgment.about
    made = f"`{about['command']}`: {about['seeds']} seeds, requests {about['requests']}"
    cost = f"{about['wall_s']} s on {about['cores']} cores ({about['cpu']})"
    lines = [f"{made}; {cost}, commit {about['commit']}.", ""]
    lines += _against_best(judgment)
    for case, shares in _in_order(judgment).items():
        capacity = judgment.capacity[case]
        tuned = {policy: found for policy, found in judgment.tuned.get(case, {}).items() if found}
        lines += ["", f"### {case}", "", f"Capacity under `prefix`: {capacity:.2f} sessions/s."]
        if tuned:
            texts = (
                f"`{policy}` " + ", ".join(f"{name} {value:g}" for name, value in found.items())
                for policy, found in tuned.items()
            )
            lines.append(f"Tuned: {'; '.join(texts)}; the others at their defaults.")
        for share, variants in shares.items():
            lines += ["", f"{share} of capacity:", "", *_table(variants)]
    return lines


def _against_best(judgment: "Judgment") -> list[str]:
    """The default against the best other policy."""
    against = f"`{DEFAULT}` against it: P90 TTFT"
    lines = [
        f"| workload | load | seeds | best of the others, tuned | {against} | tokens/s | floor |",
        "|---|---|---:|---|---|---|---:|",
    ]
    for case, shares in _in_order(judgment).items():
        for share, variants in shares.items():
            if DEFAULT in variants and len([p for p in POLICIES if p in variants]) > 1:
                other, ttft, rate = duel(variants)
                cells = (case, share, str(len(variants[DEFAULT])), f"`{other}`", percent(ttft), percent(rate))
                floor = percent(_floor(variants), bounds=False)
                lines.append(f"| {' | '.join(cells)} | {floor} |")
    return lines


_COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("tokens/s", "tokens_per_s", 1, 0),
    ("output tokens/s", "output_tokens_per_s", 1, 0),
    ("TTFT P50 ms", "ttft_p50_s", 1e3, 0),
    ("P90", "ttft_p90_s", 1e3, 0),
    ("P99", "ttft_p99_s", 1e3, 0),
    ("inter-token P99 ms", "inter_token_p99_s", 1e3, 0),
    ("E2E P50 s", "e2e_p50_s", 1, 1),
    ("P90", "e2e_p90_s", 1, 1),
    ("hit rate", "hit_rate", 1, 3),
    ("spread", "load_spread", 1, 2),
    ("failed", "failed", 1, 1),
)


def _table(variants: Variants) -> list[str]:
    """One load of one case: a row per policy, best P90 TTFT first, the oracle on top."""
    switched = [name for name in SWITCHES if any(variant.endswith(f" {name}") for variant in variants)]
    titles = [title for title, *_ in _COLUMNS]
    titles += ["regret of P90", *(f"P90 {name}" for name in switched)]
    lines = ["| policy | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    whole = [name for name in variants if not name.endswith(tuple(SWITCHES))]
    whole.sort(key=lambda name: (name not in (ORACLE, FLOOR), fmean(values(variants[name], "ttft_p90_s"))))
    for name in whole:
        rows = variants[name]
        cells = []
        for _, figure, scale, digits in _COLUMNS:
            found = interval(values(rows, figure))
            text = f"{found.mean * scale:.{digits}f}"
            if figure == "ttft_p90_s" and found.low != found.high:
                text += f" [{found.low * scale:.0f}, {found.high * scale:.0f}]"
            cells.append(text)
        oracle = variants.get(ORACLE)
        cells.append(percent(paired(rows, oracle, "ttft_p90_s"), bounds=False) if oracle else "-")
        for switch in switched:
            other = variants.get(f"{name} {switch}")
            cells.append(percent(paired(other, rows, "ttft_p90_s")) if other else "")
        label = f"**`{name}`**" if name == DEFAULT else f"`{name}`" if name in POLICIES else name
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def compact(variants: Variants) -> dict[str, dict[str, Sequence[float]]]:
    """Mean and interval of each figure, for the file of results."""
    found: dict[str, dict[str, Sequence[float]]] = {}
    for name, rows in variants.items():
        figures = {}
        for figure in rows[0]:
            if figure != "seed" and all(row[figure] is not None for row in rows):
                spread = interval(values(rows, figure))
                figures[figure] = [float(f"{value:.5g}") for value in (spread.mean, spread.low, spread.high)]
        found[name] = figures
    return found
