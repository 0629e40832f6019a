"""The processes that the supervisor starts."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from skylb._core import __version__
from skylb.clock import monotonic_ns
from skylb.config import child_environment
from skylb.workers import orders
from skylb.workers.orders import Beat, Order, Report

log = logging.getLogger("skylb.workers")


class Child:
    """One process, and the channel to it.

    Args:
        process: that was started.
        channel: this side's end.
        reported: called with the child and each of its reports but beats, before `wait` returns.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        channel: socket.socket,
        reported: Callable[["Child", Report], None],
    ) -> None:
        self._process = process
        self._channel = channel
        self._reported = reported
        self.beat_ns = monotonic_ns()
        """When it has beaten last, or was started."""
        self.beats = False
        """It has beaten."""
        channel.setblocking(False)
        asyncio.get_running_loop().add_reader(channel, self._read)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """The process has ended."""
        return self._process.returncode is not None

    def order(self, order: Order, descriptors: Sequence[int] = ()) -> bool:
        """Sends an order; ``False``: the child is gone, or takes nothing."""
        try:
            orders.send(self._channel, order, descriptors)
        except OSError as error:
            log.warning("process %d takes no orders: %s", self.pid, error.strerror or error)
            return False
        return True

    def _read(self) -> bool:
        """Takes one report; ``False``: there is none at present."""
        try:
            packet, _ = orders.receive(self._channel)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True  # it has ended with orders unread: what it has reported before comes next
        except OSError:
            packet = None
        if isinstance(packet, Beat):
            self.beat_ns, self.beats = monotonic_ns(), True
        elif packet is None:
            asyncio.get_running_loop().remove_reader(self._channel)
        elif not isinstance(packet, Order):
            self._reported(self, packet)
        return packet is not None

    def kill(self) -> None:
        """Ends the process at once."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> int:
        """Waits for its end; its exit status, or minus the signal that has ended it."""
        status = await self._process.wait()
        if self._channel.fileno() >= 0:  # several may wait for it
            while self._read():
                pass  # what it has reported last counts
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
        return status


async def spawn(reported: Callable[[Child, Report], None]) -> Child:
    """Starts a process that loads everything, and waits for its `Boot`.

    Where another version was installed meanwhile, it ends with status `EXIT_VERSION`: it would read orders
    and settings in another way. It has a session of its own: the keys of a terminal reach the supervisor
    alone.

    Raises:
        OSError: the process cannot be started.
    """
    ours, theirs = orders.pair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "skylb.workers",
            str(theirs.fileno()),
            __version__,
            stdin=asyncio.subprocess.DEVNULL,
            env=child_environment(),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return Child(process, ours, reported)
