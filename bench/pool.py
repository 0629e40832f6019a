"""Tasks spread over processes; Ctrl-C and the end of the time keep what there is."""

import os
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
    """Processes that run tasks until all are done, Ctrl-C comes, or the time is over."""

    def __init__(self, processes: int, minutes: float) -> None:
        self._pool = ProcessPoolExecutor(processes, initializer=_deaf)
        self._began_s = time.monotonic()
        self._until_s = self._began_s + minutes * 60

    def each(self, do: Callable[[In], Out], items: Iterable[In], took: Callable[[In, Out], None]) -> None:
        """Hands every outcome to ``took`` as it comes.

        Raises:
            KeyboardInterrupt: Ctrl-C, or the time is over; what had begun has ended, the rest never begins.
        """
        futures: dict[Future[Out], In] = {self._pool.submit(do, item): item for item in items}
        with ExitStack() as undo:
            undo.callback(self._pool.shutdown, cancel_futures=True)
            for done, future in enumerate(as_completed(futures), 1):
                took(futures[future], future.result())
                now_s = time.monotonic()
                print(f"{now_s - self._began_s:6.0f} s  {done}/{len(futures)}", file=sys.stderr, flush=True)
                if now_s > self._until_s:
                    raise KeyboardInterrupt
            undo.pop_all()

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown()


def _deaf() -> None:
    # The terminal sends Ctrl-C to all processes: the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def cores() -> int:
    """Processes that can run at once."""
    return len(os.sched_getaffinity(0))
