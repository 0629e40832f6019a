"""What is shown live on a terminal."""

from types import TracebackType
from typing import Self

from rich.live import Live
from rich.progress import Progress


class LiveView:
    """Something live for as long as a ``with`` block runs.

    Args:
        live: what is live; ``None`` where there is no terminal.
    """

    def __init__(self, live: Live | Progress | None) -> None:
        self._shown = live

    def __enter__(self) -> Self:
        if self._shown is not None:
            self._shown.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is not None:
            self._shown.stop()
