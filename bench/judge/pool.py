"""Processes that run tasks; the end of the time, or Ctrl-C, keeps what there is."""

import signal
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class Pool:
    """Processes; Ctrl-C is the parent's business alone."""

    def __init__(self, processes: int, minutes: float = 1e6) -> None:
        self._pool = ProcessPoolExecutor(processes, initializer=_deaf)
        self.began_s = time.monotonic()
        self._until_s = self.began_s + minutes * 60

    def each(
        self, do: Callable[[In], Out], items: Iterable[In], what: str, took: Callable[[In, Out], None]
    ) -> None:
        """Hands every outcome to ``took`` as it comes.

        Raises:
            KeyboardInterrupt: or the time is over; after what had not begun was given up.
        """
        futures: dict[Future[Out], In] = {self._pool.submit(do, item): item for item in items}
        with ExitStack() as undo:
            undo.callback(self._pool.shutdown, cancel_futures=True)
            for done, future in enumerate(as_completed(futures), 1):
                took(futures[future], future.result())
                elapsed_s = time.monotonic() - self.began_s
                print(f"{elapsed_s:6.0f} s  {what}: {done}/{len(futures)}", file=sys.stderr, flush=True)
                if time.monotonic() > self._until_s:
                    raise KeyboardInterrupt
            undo.pop_all()

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown(cancel_futures=True)


def _deaf() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
