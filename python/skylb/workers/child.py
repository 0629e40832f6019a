"""A child's side of the channel to its supervisor: what it is to be, orders, and the supervisor's death."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable

from skylb.listeners import Listening
from skylb.output import EXIT_FAILURE
from skylb.workers import orders
from skylb.workers.orders import Boot, Line, Renew, Stop

SUPERVISORS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""Signals for the supervisor, which passes them on. A service manager may send them to all processes."""


class Channel:
    """The channel to the supervisor.

    Args:
        descriptor: of the socket that the supervisor has passed.
    """

    def __init__(self, descriptor: int) -> None:
        self._sock = socket.socket(fileno=descriptor)

    def boot(self) -> tuple[Boot, list[int]]:
        """Waits for what this process is to be, with the descriptors that it gets.

        Raises:
            EOFError: the supervisor is gone.
        """
        self._sock.setblocking(True)
        packet, descriptors = orders.receive(self._sock)
        if not isinstance(packet, Boot):  # it is None: the first packet is always a Boot
            raise EOFError("the supervisor is gone")  # noqa: TRY004 - the type is not at fault
        self._sock.setblocking(False)
        return packet, descriptors

    def listen(
        self, stop: Callable[[], None], renew: Callable[[], None], line: Callable[[Line, int], None]
    ) -> None:
        """Takes orders from now on. When the supervisor dies, this process ends at once.

        Args:
            stop: called when it is to end, and again when it is to hurry.
            renew: called when it is to read its files again.
            line: called with a new line and its descriptor.
        """
        for number in SUPERVISORS:
            signal.signal(number, signal.SIG_IGN)  # again: the loop may have taken one over

        def ready() -> None:
            try:
                packet, descriptors = orders.receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = None, []
            if packet is None:
                os._exit(EXIT_FAILURE)  # nobody would start this balancer's other processes again
            if isinstance(packet, Stop):
                stop()
            elif isinstance(packet, Renew):
                renew()
            elif isinstance(packet, Line):
                line(packet, descriptors[0])

        asyncio.get_running_loop().add_reader(self._sock, ready)

    def report(self, packet: orders.Report) -> None:
        """Tells the supervisor something; where it is gone, this process ends by itself."""
        try:
            orders.send(self._sock, packet)
        except OSError:
            os._exit(EXIT_FAILURE)


def listening(boot: Boot, descriptors: list[int]) -> dict[str, list[Listening]]:
    """A child's listening sockets, by what they are for."""
    rest = iter(descriptors)
    found: dict[str, list[Listening]] = {}
    for name, count in boot.sockets.items():
        found[name] = [Listening(fileno=next(rest)) for _ in range(count)]
        for sock in found[name]:
            sock.setblocking(False)
    return found
