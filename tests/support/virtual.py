"""Virtual time: an event loop that never waits, and the clock that it moves on."""

import asyncio
import selectors
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from typing import Any

START_NS = 1_000_000_000_000


class Clock:
    """A monotonic clock that stands still but for what is asked of it."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += ceil(seconds * 1e9)


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("nothing is due any more: the test would wait for ever")
        if timeout > 0:
            self._clock.advance(timeout)
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """Whatever is due next happens at once; threads' work is done where it is asked for."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Selector(clock))
        self._virtual = clock

    def time(self) -> float:
        return self._virtual.now_ns / 1e9

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]  # at once
        future: asyncio.Future[Any] = self.create_future()
        self.call_soon(lambda: future.cancelled() or future.set_result(func(*args)))
        return future


@contextmanager
def patched(clock: Clock) -> Iterator[None]:
    """Every module that has read the monotonic clock reads this one."""
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("skylb") and getattr(module, "monotonic_ns", None) is time.monotonic_ns
    ]
    for module in modules:
        module.monotonic_ns = clock  # type: ignore[attr-defined]  # found by its name just now
    try:
        yield
    finally:
        for module in modules:
            module.monotonic_ns = time.monotonic_ns  # type: ignore[attr-defined]  # as above


def run(test: Callable[[Clock], Coroutine[Any, Any, None]]) -> None:
    """Runs a test in virtual time."""
    clock = Clock()
    with patched(clock), asyncio.Runner(loop_factory=partial(Loop, clock)) as runner:
        runner.run(test(clock))
