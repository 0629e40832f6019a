"""The supervisor's side of hand-overs: it starts who takes this balancer's place, and ends who must not."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from skylb.config import HANDOVER_VARIABLE, all_environment
from skylb.handover import giver
from skylb.tasks import TaskGroup
from skylb.workers.children import Child
from skylb.workers.orders import Succeed

log = logging.getLogger("skylb.workers")


class Heirs:
    """The process that is about to take this balancer's place, and the one that was started for it.

    The engine process hands over. Where that dies, its heir takes the whole balancer for dead, and would
    serve beside the next engine process.

    Args:
        tasks: in which processes are started and ended.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._pid = 0
        """The process that the engine process hands over to; 0 for none."""
        self._pidfd = -1
        """It, and no later process that gets its number."""
        self._started: subprocess.Popen[bytes] | None = None
        """The last process that was started here: it may live longer than this one."""

    # ------------------------------------------------------------------ who is started

    def start(self, engine: Callable[[], Child | None]) -> None:
        """Starts this program anew, as it is on disk now: the engine process hands over to it.

        Args:
            engine: the engine process, at the time of the call.
        """
        if self._started is not None and self._started.poll() is None:
            log.warning("hand-over: one is under way already: nothing is started")
        else:
            self._tasks.start(self._start(engine), name="start an heir")

    async def _start(self, engine: Callable[[], Child | None]) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            number = theirs.fileno()
            environment = {**giver.child_environment(all_environment()), HANDOVER_VARIABLE: str(number)}
            command = [sys.executable, *sys.orig_argv[1:]]
            try:
                self._started = process = await asyncio.to_thread(
                    subprocess.Popen, command, env=environment, pass_fds=[number]
                )
            except OSError as error:
                log.warning("hand-over failed: %s; this process goes on", error)
                return
            log.info("hand-over: started process %d", process.pid)
            child = engine()
            if child is None or not child.order(Succeed(process.pid), [ours.fileno()]):
                log.warning("hand-over failed: there is no engine process at present; this process goes on")
                self._end_started()

    def _end_started(self) -> None:
        if self._started is not None and self._started.poll() is None:
            self._tasks.start(asyncio.to_thread(giver.end, self._started), name="end an heir")

    # ------------------------------------------------------------------ what the engine process reports

    def begun(self, pid: int) -> None:
        """The engine process hands over to this process."""
        self._forget()
        try:
            self._pidfd, self._pid = os.pidfd_open(pid), pid
        except OSError as error:
            log.warning("hand-over: process %d cannot be watched: %s", pid, error.strerror or error)

    def gave_up(self, pid: int) -> None:
        """The engine process hands over to this process no more."""
        if pid == self._pid:
            self._forget()
        if self._started is not None and pid == self._started.pid:
            self._end_started()

    def engine_died(self) -> None:
        """The engine process has died, and nobody has accepted in its place: no heir may."""
        if self._pid:
            log.error("hand-over failed: process %d is ended, as the engine process has died", self._pid)
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                log.info("hand-over: process %d had ended already", self._pid)
            except PermissionError as error:
                log.error("process %d cannot be ended, and may serve too: %s", self._pid, error.strerror)  # noqa: TRY400 - no fault of ours
            self._forget()
        self._end_started()

    def _forget(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pid, self._pidfd = 0, -1

    def close(self) -> None:
        """Whoever takes this balancer's place lives on."""
        self._forget()
