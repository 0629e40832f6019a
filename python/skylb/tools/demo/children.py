"""The processes of the demo: starts them, reads their output, ends them with the demo."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

from skylb.errors import SkyLBError
from skylb.tasks import TaskGroup

TAIL_LINES = 15
LINE_BYTES_MAX = 1 << 20
STOP_S = 5.0
START_S = 90.0

# The kernel ends the child when the demo dies, even by SIGKILL: prctl(PR_SET_PDEATHSIG), see prctl(2),
# which an exec keeps. A session of its own keeps the terminal's Ctrl-C from it: the demo ends it in order.
_EXEC = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, "-m", "skylb", *sys.argv[2:]])
"""


class DemoError(SkyLBError):
    """The demo cannot go on; the message says why."""


class Child:
    """One ``skylb`` command as a process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._watches: list[tuple[Callable[[str], bool], asyncio.Event]] = []
        self.unwanted = False
        """It was killed on purpose: its end is no failure of the demo."""

    @property
    def status(self) -> int | None:
        """Exit status; ``None`` while it runs."""
        return self._process.returncode

    def watch(self, accepts: Callable[[str], bool]) -> asyncio.Event:
        """An event that is set by the first line of output that ``accepts`` says yes to."""
        event = asyncio.Event()
        self._watches.append((accepts, event))
        return event

    async def read(self) -> None:
        """Reads all output until it ends; the last lines are kept for a failure's message."""
        stream = self._process.stdout
        if stream is None:
            raise DemoError(f"{self.name}: no output to read")
        while line := await stream.readline():
            text = line.decode(errors="replace").rstrip()
            self._tail.append(text)
            for accepts, event in self._watches:
                if accepts(text):
                    event.set()
        await self._process.wait()

    def failure(self) -> DemoError:
        """What to say when it ended by itself."""
        tail = "\n".join(f"  {line}" for line in self._tail) or "  (it said nothing)"
        return DemoError(f"{self.name} ended with status {self.status}; its last lines:\n{tail}")

    async def kill(self) -> None:
        """SIGKILL, as a machine that dies; returns when it is gone."""
        self.unwanted = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, after `STOP_S` SIGKILL; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


class Children:
    """All processes of a demo, as a context: none is left when it ends, whatever the reason."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._tasks = TaskGroup()
        self._closing = False
        self.ended: asyncio.Future[Child] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self.ended.cancel()
        await asyncio.gather(*(child.stop() for child in reversed(self._children)))
        await self._tasks.stop()

    async def start(self, name: str, arguments: Sequence[str], ready: Callable[[str], bool]) -> Child:
        """Starts ``skylb`` with ``arguments``; returns once a line of its output satisfies ``ready``.

        Raises:
            DemoError: it ended, or was not ready within `START_S`.
        """
        if self._closing:
            raise DemoError(f"{name}: not started, the demo is ending")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _EXEC,
            str(os.getpid()),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
        )
        child = Child(name, process)
        self._children.append(child)
        event = child.watch(ready)
        self._tasks.start(self._read(child), name=f"output of {name}")
        waiting = self._tasks.start(event.wait(), name=f"start of {name}")
        await asyncio.wait({waiting, self.ended}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            raise self.ended.result().failure()
        if not event.is_set():
            raise DemoError(f"{name} was not ready within {START_S:g} s")
        return child

    async def _read(self, child: Child) -> None:
        await child.read()
        if child.unwanted:
            self._children.remove(child)
        elif not self.ended.done():
            self.ended.set_result(child)
