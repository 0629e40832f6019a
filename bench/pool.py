"""Processes that run tasks; the end of the time, or Ctrl-C, keeps what there is."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

PROGRESS_S = 10.0


class Pool:
    """Processes; Ctrl-C is the parent's business alone."""

    def __init__(self, processes: int, minutes: float = 1e6) -> None:
        self._pool = ProcessPoolExecutor(processes, initializer=_deaf)
        self.began_s = time.monotonic()
        self._until_s = self.began_s + minutes * 60

    def each(
        self,
        do: Callable[[In], Out],
        items: Iterable[In],
        took: Callable[[In, Out], None],
        what: str = "runs",
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
                print(
                    f"{self._elapsed_s():6.0f} s  {what}: {done}/{len(futures)}", file=sys.stderr, flush=True
                )
                self._mind_the_time()
            undo.pop_all()

    def follow(
        self, do: Callable[[In], Out], steps: "list[Follower[In, Out]]", name: Callable[[In], str]
    ) -> None:
        """Runs several sequences of steps side by side; a step begins when the one before has ended.

        Raises:
            KeyboardInterrupt: or the time is over; after what had not begun was given up.
        """
        futures: dict[Future[Out], tuple[Follower[In, Out], In]] = {}
        told_s, done = self.began_s, 0
        with ExitStack() as undo:
            undo.callback(self._pool.shutdown, cancel_futures=True)
            for one in steps:
                futures |= {self._pool.submit(do, item): (one, item) for item in one.following()}
            while futures:
                ended, _ = wait(futures, return_when=FIRST_COMPLETED)
                for future in ended:
                    one, item = futures.pop(future)
                    if one.ended(item, future.result()):
                        futures |= {self._pool.submit(do, more): (one, more) for more in one.following()}
                    done += 1
                    if time.monotonic() > told_s + PROGRESS_S:
                        told_s = time.monotonic()
                        left = len({id(owner) for owner, _ in futures.values()})
                        text = f"{done} tasks done, {left} of {len(steps)} cases left; last {name(item)}"
                        print(f"{self._elapsed_s():6.0f} s  {text}", file=sys.stderr, flush=True)
                self._mind_the_time()
            undo.pop_all()

    def _elapsed_s(self) -> float:
        return time.monotonic() - self.began_s

    def _mind_the_time(self) -> None:
        if time.monotonic() > self._until_s:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown(cancel_futures=True)


@dataclass
class Follower(Generic[In, Out]):
    """One sequence of steps, and how far it is.

    Attributes:
        steps: lists of tasks; a list is asked for when the one before has been run.
        took: gets every outcome.
    """

    steps: Iterator[list[In]]
    took: Callable[[In, Out], None]
    _open: int = field(default=0, init=False)

    def following(self) -> list[In]:
        """Tasks of the next step that has any; none at the end."""
        found = next((tasks for tasks in self.steps if tasks), [])
        self._open = len(found)
        return found

    def ended(self, item: In, outcome: Out) -> bool:
        """Takes an outcome; whether it was the step's last."""
        self.took(item, outcome)
        self._open -= 1
        return self._open == 0


def cores() -> int:
    """Processes that can run at once."""
    return len(os.sched_getaffinity(0))


def _deaf() -> None:
    # The terminal sends Ctrl-C to all processes: the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
