"""The page of results: bench/results/paper.md."""

from collections.abc import Iterator, Mapping, Sequence

from bench.paper.cells import BY_USERS, DAY, DAY_EVEN, DAY_SKEWED, DAY_SKEWED_EVEN, EVEN, PUSH, SKEW, TABLE
from bench.paper.checks import beside_shipped_hold, checks
from bench.paper.claims import BASELINE_CLAIMS, CLAIMS, Claim, as_text, published, verdict
from bench.paper.curve import peaks_over_peak
from bench.paper.figures import COLUMNS, Column, Rows, mean, over_seeds, ratio
from bench.paper.figures import as_text as figure_text
from bench.paper.replicas import BOUNDS_S, equal_p90, needed, needed_between, series
from bench.paper.runs import Found, SystemRows
from bench.paper.systems import BY_NAME, OURS, PER_REGION, PUSHING

Table = Iterator[str]


def document(found: Found, about: Mapping[str, str], plots: Sequence[tuple[str, str]]) -> str:
    """The whole page; ``plots`` are titles and paths."""
    seeds = {part: _seeds(found, part) for part in (TABLE, PUSH, SKEW, DAY)}
    made = f"`{about['command']}`, requests {about['requests']}, commit {about['commit']}"
    cost = f"{about['wall_s']} s on {about['cores']} cores ({about['cpu']})"
    runs = (
        f"{seeds[TABLE]} (main table), {seeds[PUSH]} (pushing), {seeds[SKEW]} (replicas), {seeds[DAY]} (days)"
    )
    lines = [
        "# make paper",
        "",
        "[EVALUATION.md](../../docs/EVALUATION.md#the-papers-evaluation) says how this was made.",
        "",
        f"{made}; {cost}. Seeds: {runs}.",
    ]
    if about["interrupted"] == "yes":
        lines.append("The run was ended early: cells have fewer seeds than they should.")
    lines += ["", "## Goals", "", *_goals(found)]
    lines += ["", "## Beside the paper", "", *_claims(found)]
    lines += ["", *_ratios(found)]
    lines += [f"![{title}]({path})" for title, path in plots]
    lines += ["", "## Systems", "", *_legend()]
    lines += ["", "## Main table", "", _KEY, *_cells(found, TABLE)]
    lines += ["", *_refused(found)]
    lines += ["", "## Pushing", "", "Tree of Thoughts, one region, four replicas.", *_cells(found, PUSH)]
    lines += ["", "## Replicas", *_replicas(found)]
    return "\n".join(lines) + "\n"


_KEY = (
    "Means over seeds with 95 % bootstrap intervals. tokens/s: input + 2 x output, cached input included. "
    "Best P90 first. Layout 444: four replicas in each region; 323: two in eu."
)


def _seeds(found: Found, part: str) -> str:
    counts = {len(rows) for systems in found.part(part).values() for rows in systems.values()}
    if not counts:
        return "none"
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(titles: Sequence[str], left: int = 1) -> list[str]:
    return [_row(titles), "|" + "---|" * left + "---:|" * (len(titles) - left)]


def _goals(found: Found) -> Table:
    yield from _head(("goal", "", "figure"), 3)
    for check in checks(found):
        state = {True: "met", False: "**missed**", None: "not run"}[check.met]
        yield _row((check.goal, state, check.figure))


# --------------------------------------------------------------------- beside the paper


def _claims(found: Found) -> Table:
    name = published(found)
    yield f"`{name}` stands for SkyLB as published, `{OURS}` is our default. Ranges are over workloads"
    yield "(layout 444) and baselines. *Sign*: on the claimed side of 1."
    yield ""
    yield from _head(("claim", "paper", f"`{name}`", "reproduces", f"`{OURS}`", "reproduces", "why not"), 7)
    reasons: list[str] = []
    for claim in CLAIMS:
        theirs, ours = claim.of(found, name), claim.of(found, OURS)
        verdicts = verdict(theirs, claim), verdict(ours, claim)
        why = ""
        if claim.why and set(verdicts) - {"yes", "-"}:
            if claim.why not in reasons:
                reasons.append(claim.why)
            why = f"({reasons.index(claim.why) + 1})"
        yield _row((claim.text, claim.said, as_text(theirs), verdicts[0], as_text(ours), verdicts[1], why))
    yield ""
    yield from (f"{number}. {reason}" for number, reason in enumerate(reasons, 1))
    yield ""
    yield "The baselines themselves:"
    yield ""
    yield from _head(("claim", "paper", "here", "reproduces"), 4)
    for claim in BASELINE_CLAIMS:
        yield _row(_baseline(found, claim))


def _baseline(found: Found, claim: Claim) -> tuple[str, ...]:
    values = claim.of(found, "")
    return claim.text, claim.said, as_text(values), verdict(values, claim)


def _ratios(found: Found) -> Table:
    """Each of ours over each baseline, by workload."""
    for ours in (OURS, published(found)):
        cells = {name: systems for name, systems in found.part(TABLE).items() if ours in systems}
        if not cells:
            continue
        yield f"### `{ours}` over the others"
        yield ""
        yield "Throughput; times lower TTFT P50; times lower TTFT P90. Above 1 it is better."
        yield ""
        yield from _head(("against", *cells))
        for other, of in BY_NAME.items():
            if of.role in {"global", "local", "central"} and any(other in rows for rows in cells.values()):
                texts = [_three(systems[ours], systems.get(other, [])) for systems in cells.values()]
                yield _row((f"`{other}`", *texts))
        yield ""


def _three(ours: Rows, other: Rows) -> str:
    found = (
        ratio(ours, other, "tokens_per_s"),
        ratio(ours, other, "ttft_p50_s", inverse=True),
        ratio(ours, other, "ttft_p90_s", inverse=True),
    )
    return "; ".join(f"{one.mean:.2f}" if one else "-" for one in found)


# ------------------------------------------------------------------------------- tables


def _legend() -> Table:
    yield from _head(("system", "what it is"), 2)
    for system in {system.name: system for system in (*BY_NAME.values(), *PUSHING)}.values():
        yield _row((f"`{system.name}`", system.title))


def _cells(found: Found, part: str) -> Table:
    for name, systems in found.part(part).items():
        yield ""
        yield f"### {name}"
        yield ""
        yield from _head(("system", *(column.title for column in COLUMNS)))
        best = {column.name: _best(systems, column) for column in COLUMNS}
        for system in sorted(systems, key=lambda one: mean(systems[one], "ttft_p90_s")):
            texts = [f"`{system}`"]
            for column in COLUMNS:
                text = figure_text(over_seeds(systems[system], column.name), column, bounds=True)
                texts.append(f"**{text}**" if best[column.name] == system else text)
            yield _row(texts)


def _best(systems: SystemRows, column: Column) -> str | None:
    """The system with the best figure; none where there is no better one."""
    if column.name in {"failed", "forwards", "load_spread"}:
        return None
    key = max if column.higher_is_better else min
    return key(systems, key=lambda system: mean(systems[system], column.name))


def _refused(found: Found) -> Table:
    failed = {name: count for name, count in beside_shipped_hold(found).items() if count}
    if failed:
        texts = ", ".join(f"{name} {count:.0f}" for name, count in failed.items())
        yield "All rows but one hold a request for 600 s, so that all answer the same ones."
        yield f"With the shipped 30 s the default refuses, per run: {texts}; elsewhere none."


# ----------------------------------------------------------------------------- replicas

PLACEMENTS = (
    (SKEW, EVEN, "120/40/40 users with pauses, replicas evenly"),
    (SKEW, BY_USERS, "120/40/40 users with pauses, replicas by users"),
    (DAY, DAY_EVEN, "A day, sessions and replicas evenly"),
    (DAY, DAY_SKEWED, "A day, sessions 60/20/20, replicas by them"),
    (DAY, DAY_SKEWED_EVEN, "A day, sessions 60/20/20, replicas evenly"),
)


def _replicas(found: Found) -> Table:
    even = peaks_over_peak({"us": 1.0, "eu": 1.0, "asia": 1.0})
    skewed = peaks_over_peak({"us": 60.0, "eu": 20.0, "asia": 20.0})
    yield ""
    yield f"Of the days, the sum of the regional peaks is {even:.2f} times the peak of the sum;"
    yield f"with 60/20/20 it is {skewed:.2f} times (paper: 1.68)."
    for part, placement, title in PLACEMENTS:
        p90_s = series(found.part(part), placement, "ttft_p90_s")
        if not p90_s:
            continue
        counts = sorted({count for values in p90_s.values() for count in values})
        yield ""
        yield f"### {title}"
        yield ""
        yield "P90 TTFT in ms, tokens/s, by number of replicas."
        yield ""
        yield from _head(("system", *map(str, counts)))
        rate = series(found.part(part), placement, "tokens_per_s")
        for system, values in p90_s.items():
            texts = [
                f"{values[count] * 1e3:.0f}, {rate[system][count]:.0f}" if count in values else "-"
                for count in counts
            ]
            yield _row((f"`{system}`", *texts))
        yield ""
        yield from _needs(p90_s, counts)


def _needs(p90_s: Mapping[str, Mapping[int, float]], counts: Sequence[int]) -> Table:
    """Replicas that bounds take, and those that equal what region-local has."""
    yield "Fewest replicas for a P90 of at most so much; in brackets between the numbers tried."
    yield ""
    yield from _head(("system", *(f"{bound:g} s" for bound in BOUNDS_S)))
    for system, values in p90_s.items():
        texts = []
        for bound_s in BOUNDS_S:
            whole, between = needed(values, bound_s), needed_between(values, bound_s)
            texts.append("-" if whole is None or between is None else f"{whole} ({between:.1f})")
        yield _row((f"`{system}`", *texts))
    local = [name for name in PER_REGION if name in p90_s]
    if OURS not in p90_s or not local:
        return
    yield ""
    yield f"Replicas with which `{OURS}` has at most the P90 that these have with so many:"
    yield ""
    yield from _head(("system", *map(str, counts)))
    for name in local:
        texts = []
        for count in counts:
            ours = equal_p90(p90_s[OURS], p90_s[name], count)
            texts.append("-" if ours is None else f"{ours} ({ours / count - 1:+.0%})")
        yield _row((f"`{name}`", *texts))
