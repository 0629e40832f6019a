"""What the demo shows: a live table on a terminal, else a line now and then; a summary at the end."""

from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from skylb.demo.state import RECENT_S, History, ReplicaState, hit_rate
from skylb.load.report import Report
from skylb.load.stats import Histogram, Tally

LINE_INTERVAL_S = 2.0

_SPARKS = " ▁▂▃▄▅▆▇█"
_BAR_WIDTH = 8
_NAME_WIDTH = 15


class View:
    """Shows a running demo.

    Args:
        title: what is being shown.
        capacity: requests that a replica runs at once; the length of a full bar.
    """

    def __init__(self, title: str, capacity: int) -> None:
        self._title = title
        self._capacity = capacity
        self._console = Console()
        live = self._console.is_terminal
        self._live = Live(console=self._console, auto_refresh=False, screen=False) if live else None
        self._next_line_s = LINE_INTERVAL_S

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Prints a line as it is."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def show(self, history: History, tally: Tally) -> None:
        """Called about twice a second."""
        if self._live is not None:
            self._live.update(self._screen(history, tally), refresh=True)
        elif history.last.elapsed_s >= self._next_line_s:
            self._next_line_s = history.last.elapsed_s + LINE_INTERVAL_S
            self.say(_line(history, tally))

    def _screen(self, history: History, tally: Tally) -> RenderableType:
        table = Table(
            title=self._title,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            padding=(0, 2, 0, 0),
        )
        table.add_column("replica", no_wrap=True, min_width=_NAME_WIDTH)
        table.add_column("health")
        table.add_column("in flight", min_width=_BAR_WIDTH + 4)
        for name in ("pending", "blocks", "req/s", "hit rate"):
            table.add_column(name, justify="right")
        for replica in history.last.state.replicas:
            table.add_row(*self._row(replica, history))
        sparks = "".join(_SPARKS[min(8, round(rate * 8))] for rate in list(history.hit_rates)[-60:])
        held = history.last.state.held
        footer = Text.assemble(
            f"\nheld {held:3d} (most {history.held_max})   ",
            ("█" * min(held, 40), "yellow"),
            f"\n{_figures(history, tally)}",
            "\nhit rate, second by second  ",
            (sparks, "green"),
            ("\nCtrl-C ends it", "dim"),
        )
        return Group(table, footer)

    def _row(self, replica: ReplicaState, history: History) -> tuple[RenderableType, ...]:
        filled = min(_BAR_WIDTH, round(replica.in_flight / self._capacity * _BAR_WIDTH))
        bar = Text.assemble(f"{replica.in_flight:3d} ", ("█" * filled, "cyan"))
        return (
            _short(replica.name),
            replica.health,
            bar,
            str(replica.pending),
            str(replica.tree_blocks),
            f"{history.pushes_per_s(replica.name):.1f}",
            _percent(hit_rate((replica.cached_tokens_total, replica.prompt_tokens_total))),
        )


def summary(history: History, report: Report) -> str:
    """What there was to see."""
    total = report.total
    ttft = total.ttft_s
    rates = list(history.hit_rates)
    third = max(1, len(rates) // 3)
    early, late = (sum(part) / len(part) if part else None for part in (rates[:third], rates[-third:]))
    cut = f", {total.unfinished} cut off" if total.unfinished else ""
    lines = [f"{total.ok} requests answered, {total.failed} failed{cut} in {report.wall_s:.1f} s"]
    lines += [f"{total.requests_per_s:.1f} requests/s, {total.output_tokens_per_s:.0f} output tokens/s"]
    lines += [f"TTFT P50 {_ms(ttft.p50)}, P90 {_ms(ttft.p90)}, P99 {_ms(ttft.p99)}"]
    lines += [f"most requests held at once: {history.held_max}"]
    lines += [
        f"prompt tokens that replicas found in their caches, by their own count: {_percent(total.hit_rate)}"
    ]
    lines += [f"  first third of the time {_percent(early)}, last third {_percent(late)}"]
    for replica in history.last.state.replicas if history.looks else []:
        rate = hit_rate((replica.cached_tokens_total, replica.prompt_tokens_total))
        lines.append(
            f"{_short(replica.name)}: {replica.pushed_total} requests, {replica.tree_blocks} cached blocks,"
            f" hit rate {_percent(rate)}"
        )
    lines += [f"error {kind}: {count}" for kind, count in total.errors.items()]
    return "\n".join(lines)


def _line(history: History, tally: Tally) -> str:
    replicas = "  ".join(
        f"[{replica.in_flight} in flight, {replica.pending} pending, {replica.tree_blocks} blocks,"
        f" {_percent(hit_rate((replica.cached_tokens_total, replica.prompt_tokens_total)))}]"
        for replica in history.last.state.replicas
    )
    state = history.last.state
    return f"{history.last.elapsed_s:5.1f} s  held {state.held}  {_figures(history, tally)}  {replicas}"


def _figures(history: History, tally: Tally) -> str:
    recent = recent_ttft(history, tally)
    quantiles = " ".join(f"P{q} {_ms(recent.quantile(q / 100))}" for q in (50, 90, 99))
    rate = hit_rate(history.last.state.tokens(), history.first.state.tokens())
    failed = f"  {tally.failed} failed" if tally.failed else ""
    return (
        f"{history.answers_per_s():.1f} requests/s  TTFT {quantiles}  hit rate {_percent(rate)}"
        f" (last {RECENT_S:.0f} s){failed}"
    )


def recent_ttft(history: History, tally: Tally) -> Histogram:
    """TTFT of the last `RECENT_S`."""
    return tally.ttft.since(history.first.ttft_buckets)


def _short(name: str) -> str:
    return name.removeprefix("http://")


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0%}"


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:.0f} ms"
