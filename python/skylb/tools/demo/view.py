"""What the demo shows: a live table on a terminal, else a line now and then; a summary at the end.

The table fits 80 columns.
"""

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from skylb.tools.demo.compare import Comparison, Measured
from skylb.tools.demo.failures import reasons
from skylb.tools.demo.frame import Frame, RegionFrame, ReplicaFrame
from skylb.tools.demo.picture import recent_ttft
from skylb.tools.demo.state import RECENT_S, History
from skylb.tools.liveview import LiveView
from skylb.tools.load.drive import Load
from skylb.tools.load.report import Report
from skylb.tools.load.stats import Histogram

LINE_INTERVAL_S = 2.0

_SPARKS = " ▁▂▃▄▅▆▇█"
_BAR_WIDTH = 4
_WIDTHS = {
    "region": 6,
    "users": 9,
    "P50": 8,
    "held": 4,
    "forwards/s": 15,
    "replica": 7,
    "state": 8,
    "runs": 9,
    "cached": 6,
}
"""The table's columns: with a space between two of them, 80 in all."""

NEWS_SHOWN = 4


class View(LiveView):
    """Shows a running demo.

    Args:
        title: what is being shown.
        capacity: requests that a replica runs at once; the length of a full bar.
    """

    def __init__(self, title: str, capacity: int) -> None:
        self.page = ""
        """The live page's URL."""
        self._title = title
        self._capacity = capacity
        self._console = Console()
        live = self._console.is_terminal
        self._live = Live(console=self._console, auto_refresh=False, screen=False) if live else None
        super().__init__(self._live)
        self._next_line_s = LINE_INTERVAL_S

    def say(self, text: str) -> None:
        """Prints a line as it is."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def show(self, frame: Frame, history: History, load: Load) -> None:
        """Called about twice a second."""
        if self._live is not None:
            self._live.update(self.screen(frame, history, load), refresh=True)
        elif frame.t_s >= self._next_line_s:
            self._next_line_s = frame.t_s + LINE_INTERVAL_S
            self.say(_line(frame, history, load))

    def screen(self, frame: Frame, history: History, load: Load) -> RenderableType:
        """The table, and what stands below it."""
        table = Table(
            title=self._title,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=0,
        )
        for name, width in _WIDTHS.items():
            right = name in {"P50", "held", "cached"}
            table.add_column(name, no_wrap=True, width=width, justify="right" if right else "left")
        for number, region in enumerate(frame.regions):
            facts = _region_cells(frame, region)
            for index, replica in enumerate(region.replicas):
                table.add_row(
                    *(facts if index == 0 else ("",) * len(facts)),
                    *self._replica_cells(replica, region.name),
                    end_section=index + 1 == len(region.replicas) and number + 1 < len(frame.regions),
                )
        sparks = "".join(_SPARKS[min(8, round(rate * 8))] for rate in list(history.hit_rates)[-44:])
        news = [f"\n{t_s:6.1f} s  {text}" for t_s, text in frame.news[:NEWS_SHOWN]]
        footer = Text.assemble(
            *(f"\n{line}" for line in _figures(history, load)),
            "\ntokens from cache, each second  ",
            (sparks, "green"),
            *_settings(frame),
            ("".join(news), "yellow"),
            "\n\nlive page, with switches and buttons that break things:\n",
            (self.page, "bold cyan"),
            ("   Ctrl-C ends the demo", "dim"),
        )
        return Group(table, footer)

    def _replica_cells(self, replica: ReplicaFrame, region: str) -> tuple[RenderableType, ...]:
        health = (replica.countdown or "draining") if replica.draining else replica.health
        if replica.served_by not in {"", region}:
            health = f"by {replica.served_by}"
        style = "" if health == "up" else "red" if health in {"killed", "down"} else "yellow"
        filled = min(_BAR_WIDTH, round(replica.in_flight / self._capacity * _BAR_WIDTH))
        waits = f"+{replica.pending}" if replica.pending else ""
        return (
            replica.name,
            Text(health, style),
            Text.assemble(
                f"{replica.in_flight - min(replica.pending, replica.in_flight)}{waits} ".ljust(5),
                ("█" * filled, "cyan"),
            ),
            _percent(replica.cached),
        )


def _region_cells(frame: Frame, region: RegionFrame) -> tuple[RenderableType, ...]:
    flows = [flow for flow in frame.flows if flow.origin == region.name and flow.per_s > 0]
    users = f"{region.users}" if region.sent_to == region.name else f"{region.users} >{region.sent_to}"
    up = region.balancer == "up"
    to = " ".join(f"{flow.per_s:.1f} {flow.target}" for flow in flows) or "-"
    return (
        Text(region.name, "bold"),
        users,
        _ms(region.ttft_p50_s),
        str(region.held) if up else "-",
        Text("evacuated", "yellow")
        if region.evacuating
        else to
        if up
        else Text(f"balancer {region.balancer}", "red"),
    )


def _settings(frame: Frame) -> Iterator[str | tuple[str, str]]:
    """What each setting gave, once there are two."""
    if len(frame.given) < 2:
        return
    yield "\nTTFT P90 under each setting:"
    for found in frame.given:
        yield (f"\n  {_measured(found)}", "bold" if found.now else "")


def _measured(found: Measured) -> str:
    return (
        f"{found.setting:<28} P50 {_ms(found.p50_s):>7}  P90 {_ms(found.p90_s):>7}  in {found.seconds:.0f} s"
    )


def summary(history: History, report: Report, codes: Mapping[str, int], comparison: Comparison) -> str:
    """What there was to see.

    Args:
        history: of the looks.
        report: of the load.
        codes: of failed requests.
        comparison: what each setting gave.
    """
    total = report.total
    ttft = total.ttft_s
    rates = list(history.hit_rates)
    third = max(1, len(rates) // 3)
    early, late = (sum(part) / len(part) if part else None for part in (rates[:third], rates[-third:]))
    cut = f", {total.unfinished} still running at the end" if total.unfinished else ""
    lines = [f"{total.ok} requests answered, {total.failed} failed{cut} in {report.wall_s:.1f} s"]
    lines += [f"  {count} failed: {why}" for why, count in reasons(codes)]
    lines += [f"{total.requests_per_s:.1f} requests/s, {total.output_tokens_per_s:.0f} output tokens/s"]
    lines += [f"TTFT P50 {_ms(ttft.p50)}, P90 {_ms(ttft.p90)}, P99 {_ms(ttft.p99)}"]
    lines += _by_setting(comparison.given())
    lines += [f"most requests held at once: {history.held_max}"]
    lines += [f"prompt tokens that replicas found in their caches: {_percent(total.hit_rate)}"]
    lines += [f"  first third of the time {_percent(early)}, last third {_percent(late)}"]
    lines += [
        f"{name}: {section.ok} answered, {section.failed} failed, TTFT P50 {_ms(section.ttft_s.p50)}, P90"
        f" {_ms(section.ttft_s.p90)}"
        for name, section in report.regions.items()
    ]
    lines += [f"requests forwarded between regions: {history.forwarded}"]
    return "\n".join(lines)


def _by_setting(given: Sequence[Measured]) -> list[str]:
    found = [measured for measured in given if measured.requests]
    if not found:
        return []
    return ["TTFT under each setting, warm-up left out:", *(f"  {_measured(measured)}" for measured in found)]


def _line(frame: Frame, history: History, load: Load) -> str:
    """Three lines, for where there is no terminal."""
    users = ", ".join(f"{region.name} {region.users}" for region in frame.regions)
    held = ", ".join(
        f"{region.name} {region.held if region.balancer == 'up' else '-'}" for region in frame.regions
    )
    rates, caches = _figures(history, load)
    return f"{frame.t_s:5.1f} s  {rates}\n         {caches}\n         users: {users}  held: {held}"


def _figures(history: History, load: Load) -> list[str]:
    """Two lines of figures."""
    recent = Histogram()
    for region in history.last.users:
        recent.merge(recent_ttft(history, load, region))
    quantiles = " ".join(f"P{q} {_ms(recent.quantile(q / 100))}" for q in (50, 90, 99))
    per_s = sum(map(history.answers_per_s, history.last.users))
    total = load.total()
    crossing = sum(history.forwards_per_s(*way) for way in history.last.forwards())
    failed = f"  {total.failed} failed" if total.failed else ""
    return [
        f"{per_s:.1f} requests/s  TTFT {quantiles} (last {RECENT_S:.0f} s)",
        f"hit rate {_percent(history.hit_rate())}  forwards {crossing:.1f}/s{failed}",
    ]


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0%}"


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:.0f} ms"
