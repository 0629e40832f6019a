"""What the demo shows: a live table on a terminal, else a line now and then; a summary at the end."""

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from skylb.demo.picture import recent_ttft
from skylb.demo.regions import Region, ReplicaProcess, World
from skylb.demo.state import RECENT_S, History
from skylb.liveview import LiveView
from skylb.load.drive import Load
from skylb.load.report import Report
from skylb.load.stats import Histogram

LINE_INTERVAL_S = 2.0

_SPARKS = " ▁▂▃▄▅▆▇█"
_BAR_WIDTH = 8
_HEALTH_WIDTH = 8


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

    def show(self, history: History, load: Load, world: World) -> None:
        """Called about twice a second."""
        if self._live is not None:
            self._live.update(self._screen(history, load, world), refresh=True)
        elif history.last.elapsed_s >= self._next_line_s:
            self._next_line_s = history.last.elapsed_s + LINE_INTERVAL_S
            self.say(_line(history, load, world))

    def _screen(self, history: History, load: Load, world: World) -> RenderableType:
        table = Table(
            title=self._title,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            padding=(0, 2, 0, 0),
        )
        table.add_column("region", no_wrap=True)
        table.add_column("replica", no_wrap=True)
        table.add_column("health", min_width=_HEALTH_WIDTH)
        table.add_column("in flight", min_width=_BAR_WIDTH + 4)
        for name in ("pending", "blocks", "hit rate", "users", "TTFT P50", "held", "forwards/s"):
            table.add_column(name, justify="right")
        for region in world.regions.values():
            facts = _region_cells(region, history, load)
            for index, replica in enumerate(region.replicas):
                table.add_row(
                    region.name if index == 0 else "",
                    *self._replica_cells(replica, history),
                    *(facts if index == 0 else ()),
                )
        sparks = "".join(_SPARKS[min(8, round(rate * 8))] for rate in list(history.hit_rates)[-60:])
        footer = Text.assemble(
            f"\n{_figures(history, load)}",
            "\nhit rate, second by second  ",
            (sparks, "green"),
            f"\nlive page with buttons: {self.page}",
            ("\nCtrl-C ends it", "dim"),
        )
        return Group(table, footer)

    def _replica_cells(self, replica: ReplicaProcess, history: History) -> tuple[RenderableType, ...]:
        seen = history.last.replicas().get(replica.url)
        if seen is None or replica.child is None:
            return (replica.name, "killed" if replica.child is None else "unserved", "", "", "", "")
        filled = min(_BAR_WIDTH, round(seen.in_flight / self._capacity * _BAR_WIDTH))
        return (
            replica.name,
            "draining" if seen.draining else seen.health,
            Text.assemble(f"{seen.in_flight:3d} ", ("█" * filled, "cyan")),
            str(seen.pending),
            str(seen.tree_blocks),
            _percent(history.hit_rate(replica.url)),
        )


def _region_cells(region: Region, history: History, load: Load) -> tuple[str, ...]:
    state = history.last.states.get(region.name)
    forwards = sum(history.forwards_per_s(region.name, peer.name) for peer in (state.peers if state else ()))
    return (
        str(load.seats(region.name)),
        _ms(recent_ttft(history, load, region.name).quantile(0.5)),
        "balancer killed" if region.balancer is None else "-" if state is None else str(state.held),
        f"{forwards:.1f}",
    )


def summary(history: History, report: Report) -> str:
    """What there was to see."""
    total = report.total
    ttft = total.ttft_s
    rates = list(history.hit_rates)
    third = max(1, len(rates) // 3)
    early, late = (sum(part) / len(part) if part else None for part in (rates[:third], rates[-third:]))
    cut = f", {total.unfinished} still running at the end" if total.unfinished else ""
    lines = [f"{total.ok} requests answered, {total.failed} failed{cut} in {report.wall_s:.1f} s"]
    lines += [f"{total.requests_per_s:.1f} requests/s, {total.output_tokens_per_s:.0f} output tokens/s"]
    lines += [f"TTFT P50 {_ms(ttft.p50)}, P90 {_ms(ttft.p90)}, P99 {_ms(ttft.p99)}"]
    lines += [f"most requests held at once: {history.held_max}"]
    lines += [
        f"prompt tokens that replicas found in their caches, by their own count: {_percent(total.hit_rate)}"
    ]
    lines += [f"  first third of the time {_percent(early)}, last third {_percent(late)}"]
    lines += [
        f"{name}: {section.ok} answered, {section.failed} failed, TTFT P50 {_ms(section.ttft_s.p50)}, P90"
        f" {_ms(section.ttft_s.p90)}"
        for name, section in report.regions.items()
    ]
    lines += [f"requests forwarded between regions: {history.forwarded}"]
    lines += [f"error {kind}: {count}" for kind, count in total.errors.items()]
    return "\n".join(lines)


def _line(history: History, load: Load, world: World) -> str:
    regions = "  ".join(
        f"[{region.name}: {load.seats(region.name)} users, {_in_flight(region, history)} in flight,"
        f" held {_held(region, history)}]"
        for region in world.regions.values()
    )
    return f"{history.last.elapsed_s:5.1f} s  {_figures(history, load)}  {regions}"


def _in_flight(region: Region, history: History) -> int:
    seen = history.last.replicas()
    return sum(seen[replica.url].in_flight for replica in region.replicas if replica.url in seen)


def _held(region: Region, history: History) -> str:
    state = history.last.states.get(region.name)
    return "-" if state is None else str(state.held)


def _figures(history: History, load: Load) -> str:
    recent = Histogram()
    for region in history.last.users:
        recent.merge(recent_ttft(history, load, region))
    quantiles = " ".join(f"P{q} {_ms(recent.quantile(q / 100))}" for q in (50, 90, 99))
    per_s = sum(map(history.answers_per_s, history.last.users))
    total = load.total()
    failed = f"  {total.failed} failed" if total.failed else ""
    return (
        f"{per_s:.1f} requests/s  TTFT {quantiles}  hit rate {_percent(history.hit_rate())}"
        f" (last {RECENT_S:.0f} s){failed}"
    )


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0%}"


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:.0f} ms"
