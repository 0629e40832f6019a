"""One line that says how a load is getting on, on stderr."""

from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.text import Text

from skylb.tools.liveview import LiveView
from skylb.tools.load.stats import Tally

LINE_INTERVAL_S = 2.0
"""Between lines where there is no terminal."""


RATE_INTERVAL_S = 1.0
"""What the rate of answers is averaged over, at least."""


class Progress(LiveView):
    """A live line on a terminal; elsewhere a line every few seconds; or nothing."""

    def __init__(self, kind: Literal["auto", "lines", "off"], requests: int) -> None:
        self._requests = requests
        self._console = Console(stderr=True)
        live = kind == "auto" and self._console.is_terminal
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if live else None
        super().__init__(self._live)
        self._lines = kind != "off" and not live
        self._next_line_s = LINE_INTERVAL_S
        self._then: tuple[float, int] = (0.0, 0)
        self._per_s = 0.0

    def show(self, elapsed_s: float, tally: Tally) -> None:
        """Called a few times a second with all figures so far."""
        if self._live is not None:
            text = Text(self._line(elapsed_s, tally), no_wrap=True, overflow="ellipsis")
            self._live.update(text, refresh=True)
        elif self._lines and elapsed_s >= self._next_line_s:
            self._next_line_s = elapsed_s + LINE_INTERVAL_S
            self._console.print(self._line(elapsed_s, tally), soft_wrap=True, markup=False, highlight=False)

    def _line(self, elapsed_s: float, tally: Tally) -> str:
        then_s, then_ok = self._then
        if elapsed_s - then_s >= RATE_INTERVAL_S:
            self._per_s = (tally.ok - then_ok) / (elapsed_s - then_s)
            self._then = (elapsed_s, tally.ok)
        p50_s, p90_s = tally.ttft.quantile(0.5), tally.ttft.quantile(0.9)
        ttft = f"TTFT P50 {p50_s * 1e3:.0f} P90 {p90_s * 1e3:.0f} ms" if p50_s and p90_s else "TTFT -"
        tokens = tally.measured
        hits = f"hit rate {tokens.cached / tokens.prompt:.2f}" if tokens.prompt else ""
        return (
            f"{elapsed_s:6.1f} s  {tally.begun}/{self._requests} begun  {tally.in_flight} in flight  "
            f"{tally.ok} ok  {tally.failed} failed  {self._per_s:.1f}/s  {ttft}  {hits}"
        ).rstrip()
