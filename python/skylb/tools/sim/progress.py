"""How runs are getting on, on stderr."""

import time
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from skylb.tools.liveview import LiveView

LINE_INTERVAL_S = 5.0
"""Between lines where there is no terminal; shorter runs say nothing."""


class Bar(LiveView):
    """A live bar on a terminal, else a line now and then.

    Args:
        mode: as ``skylb sim --progress``.
        runs: how many there are.
    """

    def __init__(self, mode: Literal["auto", "lines", "off"], runs: int) -> None:
        console = Console(stderr=True)
        self._runs = runs
        self._console = console
        self._began_s = self._line_s = time.monotonic()
        self._lines = mode == "lines" or (mode == "auto" and not console.is_terminal)
        self._live: Progress | None = None
        if mode == "auto" and console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
            )
            self._live = Progress(*columns, console=console, transient=True)
            self._task = self._live.add_task(self._text(0), total=float(runs))
        super().__init__(self._live)

    def show(self, shares: Sequence[float]) -> None:
        """Called a few times a second with the share of each run that is done."""
        done = sum(share >= 1 for share in shares)
        if self._live is not None:
            self._live.update(self._task, completed=sum(shares), description=self._text(done))
        now_s = time.monotonic()
        if self._lines and now_s - self._line_s >= LINE_INTERVAL_S:
            self._line_s = now_s
            share = sum(shares) / max(1, self._runs)
            text = f"{now_s - self._began_s:6.1f} s  {self._text(done)}  {share:.0%}"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _text(self, done: int) -> str:
        return f"{done}/{self._runs} runs" if self._runs > 1 else "simulating"
