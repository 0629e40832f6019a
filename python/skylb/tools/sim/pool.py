"""Many runs, spread over processes; an interrupt keeps what there is."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from types import FrameType
from typing import Any

from skylb.tools.sim.result import Result, decode
from skylb.tools.sim.scenario import Scenario
from skylb.tools.sim.simulate import finish_bytes, prepare

POLL_S = 0.2

Show = Callable[[Sequence[float]], None]
"""Gets the share of each run that is done, a few times a second."""


@dataclass(slots=True)
class Runs:
    """Outcome of several runs.

    Attributes:
        results: in the order of their scenarios; ``None`` where an interrupt came before the run.
        interrupted: Ctrl-C, or SIGTERM, ended it.
    """

    results: list[Result | None]
    interrupted: bool = False


class _Shared:
    """What a process of the pool shares with its parent; set once when it starts."""

    stop: Any = None
    shares: Any = None


def _begin(stop: Any, shares: Any) -> None:
    # The terminal sends Ctrl-C to all processes: the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Shared.stop, _Shared.shares = stop, shares


def _run(index: int, scenario: Scenario) -> bytes | None:
    if _Shared.stop.is_set():
        return None

    def watch(share: float) -> bool:
        _Shared.shares[index] = share
        return not _Shared.stop.is_set()

    result = finish_bytes(prepare(scenario), watch)
    _Shared.shares[index] = 1.0
    return result


def run_all(scenarios: Sequence[Scenario], *, processes: int = 1, show: Show | None = None) -> Runs:
    """Runs all scenarios; in this process if ``processes`` is 1.

    Ctrl-C (in the main thread) ends it early: runs under way are kept as far as they came.

    Raises:
        ConfigError: a scenario is impossible.
        SkyLBError: a workload cannot be had, or an invariant broke.
    """
    interrupts = _Interrupts()
    with interrupts:
        if processes == 1 or len(scenarios) == 1:
            return _run_here(scenarios, interrupts, show)
        return _run_spread(scenarios, min(processes, len(scenarios)), interrupts, show)


class _Interrupts:
    """Counts SIGINT and SIGTERM while it is entered; the second one is an ordinary KeyboardInterrupt."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread: whoever owns that decides
            self._before.clear()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True


def _run_here(scenarios: Sequence[Scenario], interrupts: _Interrupts, show: Show | None) -> Runs:
    shares = [0.0] * len(scenarios)
    results: list[Result | None] = []
    for index, scenario in enumerate(scenarios):
        if interrupts.seen:
            results.append(None)
            continue

        def watch(share: float, index: int = index) -> bool:
            shares[index] = share
            if show is not None:
                show(shares)
            return not interrupts.seen

        results.append(decode(finish_bytes(prepare(scenario), watch)))
        watch(1.0)
    return Runs(results, interrupts.seen)


def _run_spread(
    scenarios: Sequence[Scenario], processes: int, interrupts: _Interrupts, show: Show | None
) -> Runs:
    context = multiprocessing.get_context("spawn")
    stop, shares = context.Event(), context.Array("d", len(scenarios), lock=False)
    with ProcessPoolExecutor(processes, context, _begin, (stop, shares)) as pool:
        futures = [pool.submit(_run, index, scenario) for index, scenario in enumerate(scenarios)]
        try:
            _follow(futures, interrupts, stop, lambda: show(list(shares)) if show is not None else None)
            found = [future.result() for future in futures]
        finally:
            stop.set()  # where one has failed, the others end early
            pool.shutdown(cancel_futures=True)
    results = [decode(data) if data is not None else None for data in found]
    return Runs(results, interrupts.seen)


def _follow(
    futures: Sequence[Future[bytes | None]], interrupts: _Interrupts, stop: Any, show: Callable[[], None]
) -> None:
    """Waits for all runs; the first failure is raised at once."""
    pending = set(futures)
    while pending:
        ended, pending = wait(pending, POLL_S, FIRST_COMPLETED)
        for future in ended:
            future.result()
        if interrupts.seen:
            stop.set()
        show()
