"""The tables of a run of all rows, and which targets they miss."""

from collections.abc import Callable, Mapping, Sequence

from bench.fair.cases import Task
from bench.fair.runs import HEADROOMS, Figures, Outcome
from bench.record import machine
from skylb.config import EngineSettings
from skylb.tools.sim.summary import Interval, change, interval

NOTICED_MAX = 0.10
THROUGHPUT_MIN = 0.97

Rows = Sequence[tuple[Task, Sequence[Outcome]]]
"""A task of each row, with the outcomes of its seeds."""

_WAITS = (
    "row", "alone ms", "filled ms", "fair ms", "unfair ms", "fair to alone", "fair to filled",
    "filled to alone", "refused fair, unfair",
)  # fmt: skip
_WORK = (
    "row", "tokens/s fair to unfair", "hits fair - unfair", "others' hits alone, fair, unfair",
    "tenth's hits fair, unfair", "gap, bound tokens",
)  # fmt: skip


def tables(rows: Rows) -> tuple[list[str], list[str]]:
    """All tables as lines of Markdown, and what each row misses."""
    waits, work, missed = [_header(_WAITS)], [_header(_WORK)], []
    for task, outcomes in rows:
        of = _Row(outcomes)
        alone, filled = of.change("p90_s", "fair", "alone"), of.change("p90_s", "fair", "filled")
        tokens = of.change("tokens_per_s", "fair", "unfair")
        hits = of.difference("hit_rate", "fair", "unfair")
        waits.append(
            _line(
                task.row,
                *(f"{of.mean('p90_s', run) * 1e3:.0f}" for run in ("alone", "filled", "fair", "unfair")),
                percent(alone),
                percent(filled),
                percent(of.change("p90_s", "filled", "alone")),
                f"{of.mean('refused', 'fair'):.0f}, {of.mean('refused', 'unfair'):.0f}",
            )
        )
        work.append(
            _line(
                task.row,
                percent(tokens),
                f"{hits.mean:+.3f} [{hits.low:+.3f}, {hits.high:+.3f}]",
                ", ".join(f"{of.mean('others_hit_rate', run):.3f}" for run in ("alone", "fair", "unfair")),
                ", ".join(f"{of.mean('tenth_hit_rate', run):.3f}" for run in ("fair", "unfair")),
                ", ".join(f"{tokens:.0f}" for tokens in of.worst()),
            )
        )
        missed += [
            f"{task.row}: {text}"
            for text, met in (
                ("P90 of the others", alone.mean <= NOTICED_MAX),
                ("throughput", tokens.mean >= THROUGHPUT_MIN - 1),
                # A difference that may be chance is none.
                ("hit rate", hits.high >= 0),
                ("service gap", of.worst()[0] <= of.worst()[1]),
            )
            if not met
        ]
    return [*waits, "", *work, *_frontier(rows)], missed


class _Row:
    """The seeds of one row."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes

    def column(self, name: str, run: str) -> list[float]:
        return [getattr(getattr(outcome, run), name) for outcome in self.outcomes]

    def mean(self, name: str, run: str) -> float:
        return sum(self.column(name, run)) / len(self.outcomes)

    def change(self, name: str, run: str, base: str) -> Interval:
        return relative(self.column(name, run), self.column(name, base))

    def difference(self, name: str, run: str, base: str) -> Interval:
        pairs = zip(self.column(name, run), self.column(name, base), strict=True)
        return interval([one - other for one, other in pairs])

    def worst(self) -> tuple[float, float]:
        """Gap and bound of the seed that comes nearest to its bound."""
        fair = max(
            (of.fair for of in self.outcomes), key=lambda of: of.gap_tokens / max(1.0, of.bound_tokens)
        )
        return fair.gap_tokens, fair.bound_tokens


def points(outcomes: Sequence[Outcome]) -> Mapping[float, tuple[float, float]]:
    """By headroom: tokens/s as a share of the unfair run's, P90 of the others as a multiple of alone."""

    def point(of: Callable[[Outcome], Figures]) -> tuple[float, float]:
        tokens = relative(
            [of(one).tokens_per_s for one in outcomes], [one.unfair.tokens_per_s for one in outcomes]
        )
        p90 = relative([of(one).p90_s for one in outcomes], [one.alone.p90_s for one in outcomes])
        return 1 + tokens.mean, 1 + p90.mean

    found = {EngineSettings().tenant_headroom_ratio: point(lambda one: one.fair)}
    for ratio in HEADROOMS:
        if all(ratio in one.frontier for one in outcomes):
            found[ratio] = point(lambda one, ratio=ratio: one.frontier[ratio])  # type: ignore[misc]  # a default binds
    return dict(sorted(found.items()))


def _frontier(rows: Rows) -> list[str]:
    if not any(outcomes[0].frontier for _, outcomes in rows):
        return []
    ratios = list(points(rows[0][1]))
    lines = [_header(["row", *(f"{ratio:g}" for ratio in ratios)])]
    for task, outcomes in rows:
        found = points(outcomes)
        cells = [f"{found[ratio][1]:.2f} x, {found[ratio][0]:.0%}" for ratio in ratios]
        lines.append(_line(task.row, *cells))
    about = (
        "By `tenant_headroom_ratio`: P90 of the others as a multiple of alone, and tokens/s as a share of the"
        " unfair run's."
    )
    return ["", about, "", *lines]


def relative(values: Sequence[float], base: Sequence[float]) -> Interval:
    """The mean change against the base, seed by seed.

    Raises:
        AssertionError: a value of the base is 0.
    """
    found = change(values, base)
    if found is None:
        raise AssertionError("every run answers something")
    return found


def percent(value: Interval) -> str:
    """A change with its interval."""
    return f"{value.mean:+.1%} [{value.low:+.1%}, {value.high:+.1%}]"


def _header(titles: Sequence[str]) -> str:
    return f"{_line(*titles)}\n|" + "---|" * len(titles)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def document(lines: Sequence[str], about: str, command: str) -> str:
    """The page of results."""
    head = ["# make bench-fair", "", ", ".join(machine().values()), "", f"`{command}`", "", about, ""]
    return "\n".join([*head, *lines, "", "![P90 and tokens/s by headroom](fair.png)", ""])
