"""bench/results/judge.md and judge.json: the summary, then all of each case."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import msgspec

from bench.judge.judgment import INTER_TOKEN, TTFT, Judgment, Verdict
from bench.judge.plan import MAIN
from bench.judge.runs import Figures
from bench.judge.summary import (
    COLUMNS,
    aims,
    ceiling_text,
    floor_text,
    mean_refused,
    percent,
    refused_shares,
    row,
)
from bench.judge.variants import DEFAULT, FLOOR, GATED, SHIPPED
from skylb.tools.sim.summary import interval

HEAD = """\
# make judge

[EVALUATION.md](../../docs/EVALUATION.md#by-simulation) says how this was made and what the columns mean.

"""

_FIGURES: tuple[tuple[str, str, float, int], ...] = (
    ("TTFT P50 ms", "ttft_p50_s", 1e3, 0),
    ("P90", "ttft_p90_s", 1e3, 0),
    ("P99", "ttft_p99_s", 1e3, 0),
    ("inter-token P99 ms", "inter_token_p99_s", 1e3, 0),
    ("E2E P50 s", "e2e_p50_s", 1, 1),
    ("P90", "e2e_p90_s", 1, 1),
    ("hit rate", "hit_rate", 1, 3),
    ("output tokens/s", "output_tokens_per_s", 1, 0),
)


def document(judgment: Judgment, name: str = "judge") -> str:
    """The page; ``name`` is that of its plots."""
    about = judgment.about
    lines = [f"`{about['command']}`: {about['wall_s']} s on {about['cores']} cores ({about['cpu']}), "]
    lines[0] += f"commit {about['commit']}{', interrupted' if about['interrupted'] else ''}."
    if about["left_out"]:
        lines.append(f"Cases {about['left_out']}.")
    lines += ["", "## Summary", "", *_table(COLUMNS, [row(v) for v in judgment.verdicts.values()])]
    lines += [
        "",
        *(f"- {text}" if not text.startswith(" ") else f"  - {text.strip()}" for text in aims(judgment)),
    ]
    lines += ["", f"![Sessions per second against the best rival]({name}.png)", ""]
    if any(len(verdict.loads()) > 1 for verdict in judgment.verdicts.values()):
        lines += [f"![P90 TTFT over load]({name}_loads.png)", ""]
    lines += ["## Upper bounds", ""]
    bounds = [
        (verdict.case.name, ceiling_text(verdict), floor_text(verdict))
        for verdict in judgment.verdicts.values()
    ]
    title = "P90 on 8 times the replicas"
    lines += _table(("case", "best sessions/s of all rules and settings", f"{title} (`{DEFAULT}`)"), bounds)
    for verdict in judgment.verdicts.values():
        lines += ["", *_case(verdict)]
    return HEAD + "\n".join(lines) + "\n"


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: int = 1) -> list[str]:
    rule = "|".join("---" if at < left else "---:" for at in range(len(columns)))
    return [f"| {' | '.join(columns)} |", f"|{rule}|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def _case(verdict: Verdict) -> Iterator[str]:
    case = verdict.case
    fleet = " + ".join(_replicas(group.count, group.profile, group.override) for group in case.fleet)
    yield f"## {case.name}"
    yield ""
    yield f"{case.about[0].upper()}{case.about[1:]}, on {fleet}."
    assumed = "" if verdict.measured else " (assumed, not measured)"
    yield f"Half of the rules sustain {verdict.capacity_per_s:.3g} sessions/s{assumed}."
    if not verdict.rows:
        return
    yield ""
    yield from _rates(verdict)
    for load in verdict.loads():
        yield ""
        yield f"{load} of it:"
        yield ""
        yield from _load(verdict, load)


def _replicas(count: int, profile: str, override: dict[str, Any]) -> str:
    changes = ", ".join(f"{name} {value:g}" for name, value in override.items())
    return f"{count} `{profile}`" + (f" ({changes})" if changes else "")


def _rates(verdict: Verdict) -> Iterator[str]:
    """Sessions per second by rule and form, the best rule first."""
    case, rates = verdict.case, verdict.rates[TTFT]
    rules: dict[str, dict[str, str]] = {}
    for name, variant in verdict.variants.items():
        if name in rates and variant.rule != FLOOR:
            key = variant.rule if not variant.tried else name
            form = variant.form
            if variant.tried:
                form = SHIPPED if variant.engine.get("push") == "blind" else GATED
            rules.setdefault(key, {})[form] = name

    def best(forms: dict[str, str]) -> float:
        return max(rates[name].per_s for name in forms.values())

    def text(name: str | None, bound: str) -> str:
        found = verdict.rates[bound]
        return found[name].text() if name in found else ""

    lines = []
    for rule in sorted(rules, key=lambda rule: -best(rules[rule])):
        forms = rules[rule]
        single = forms.get("")
        cells = [text(single or forms.get(form), TTFT) for form in (SHIPPED, GATED)]
        cells += [text(single or forms.get(form), INTER_TOKEN) for form in (SHIPPED, GATED)]
        if single is not None:
            cells[1] = cells[3] = ""
        lines.append((_label(rule), *cells))
    if lines:
        first = f"sessions/s, P90 TTFT within {case.ttft_bound_s:g} s: as shipped"
        second = f"P99 inter-token time within {case.inter_token_bound_s:g} s: as shipped"
        yield from _table(("rule", first, "gated", second, "gated"), lines)


def _load(verdict: Verdict, load: str) -> Iterator[str]:
    """A row per variant, the best P90 first; the floor on top."""
    titles = tuple(title for title, *_ in _FIGURES)
    columns = ("rule", "seeds", *titles, "refused", "of them below 2k, 2-8k, more", f"P90 of `{DEFAULT}`")
    names = sorted(
        (name for name in verdict.rows[load] if not verdict.variants[name].tried),
        key=lambda name: (name != FLOOR, verdict.mean(load, name, "ttft_p90_s") or 0.0),
    )
    lines = []
    for name in names:
        rows = list(verdict.rows[load][name].values())
        cells = []
        for _, figure, scale, digits in _FIGURES:
            values = [found[figure] * scale for found in rows if figure in found]
            cells.append(f"{sum(values) / len(values):.{digits}f}" if values else "-")
        parts = refused_shares(verdict, load, name)
        shares = ", ".join(f"{failed / sent:.1%}" if sent else "-" for failed, sent in parts.values())
        refused = mean_refused(verdict, load, name)
        against = "" if name == DEFAULT else percent(verdict.change(load, DEFAULT, name))
        lines.append(
            (_label(name), str(len(rows)), *cells, f"{refused:.1f}", shares if refused else "", against)
        )
    yield from _table(columns, lines)


def _label(name: str) -> str:
    return f"**`{name}`**" if name == DEFAULT else name


def stored(judgment: Judgment) -> bytes:
    """What bench/results keeps: rates, and means over seeds."""
    cases = {}
    for name, verdict in judgment.verdicts.items():
        cases[name] = {
            "capacity_per_s": verdict.capacity_per_s,
            "ttft_bound_s": verdict.case.ttft_bound_s,
            "inter_token_bound_s": verdict.case.inter_token_bound_s,
            "done": verdict.done,
            "settings": {name: dict(variant.engine) for name, variant in verdict.variants.items()},
            "rates": {
                bound: {
                    rule: {"per_s": _round(found.per_s), "sign": found.sign} for rule, found in rates.items()
                }
                for bound, rates in verdict.rates.items()
            },
            "figures": {
                load: {rule: _compact(list(rows.values())) for rule, rows in rules.items()}
                for load, rules in verdict.rows.items()
                if load in verdict.loads()
            },
        }
    return msgspec.json.encode({"about": judgment.about, "main": MAIN, "cases": cases}) + b"\n"


def _compact(rows: list[Figures]) -> dict[str, Any]:
    """Means over the seeds; of the P90 of the first token its interval too."""
    found: dict[str, Any] = {"seeds": len(rows)}
    for figure in rows[0]:
        values = [figures[figure] for figures in rows if figure in figures]
        if len(values) == len(rows):
            found[figure] = _round(fmean(values))
    spread = interval([figures["ttft_p90_s"] for figures in rows])
    return found | {"ttft_p90_low_s": _round(spread.low), "ttft_p90_high_s": _round(spread.high)}


def _round(value: float) -> float:
    return float(f"{value:.5g}")
