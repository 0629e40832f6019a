"""A child's side of the channel to its supervisor: what it is to be, orders, and the supervisor's death."""

import asyncio
import os
import select
import signal
import socket
from collections.abc import Callable

from skylb.listeners import Listening
from skylb.output import EXIT_FAILURE
from skylb.workers import orders
from skylb.workers.orders import Beat, Boot, Broken, Line, Renew, Report, Stop, Succeed

SUPERVISORS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""Signals for the supervisor, which passes them on. A service manager may send them to all processes."""

BEAT_S = 0.5
"""Between two beats of a child: the supervisor takes a child that is silent for long for one that hangs."""


class Channel:
    """The channel to the supervisor.

    Args:
        descriptor: of the socket that the supervisor has passed.
    """

    def __init__(self, descriptor: int) -> None:
        self._sock = socket.socket(fileno=descriptor)
        self._unsent: dict[object, Report] = {}
        """Reports that the supervisor has no room for at present, by what they are about."""

    def boot(self) -> tuple[Boot, list[int]]:
        """Waits for what this process is to be, with the descriptors that it gets; beats meanwhile.

        Raises:
            EOFError: the supervisor is gone.
        """
        self._sock.setblocking(False)
        while not select.select([self._sock], [], [], BEAT_S)[0]:
            self.report(Beat())
        packet, descriptors = orders.receive(self._sock)
        if not isinstance(packet, Boot):  # it is None: the first packet is always a Boot
            raise EOFError("the supervisor is gone")  # noqa: TRY004 - the type is not at fault
        return packet, descriptors

    def listen(
        self,
        stop: Callable[[Stop], None],
        renew: Callable[[], None],
        line: Callable[[Line, int], None],
        succeed: Callable[[Succeed, int], None] = lambda _, descriptor: os.close(descriptor),
    ) -> None:
        """Takes orders from now on, and beats. When the supervisor dies, this process ends at once.

        Args:
            stop: called when it is to end, and again when it is to hurry.
            renew: called when it is to read its files again.
            line: called with a new line and its descriptor.
            succeed: called with a process that takes over, and the descriptor of the connection to it.
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
                stop(packet)
            elif isinstance(packet, Succeed):
                succeed(packet, descriptors[0])
            elif isinstance(packet, Renew):
                renew()
            elif isinstance(packet, Line):
                line(packet, descriptors[0])

        asyncio.get_running_loop().add_reader(self._sock, ready)
        self._beat()

    def _beat(self) -> None:
        asyncio.get_running_loop().call_later(BEAT_S, self._beat)
        self.report(Beat())

    def report(self, packet: Report) -> None:
        """Sends a report to the supervisor. Where it is gone, this process ends by itself.

        Where it stands still, the latest report about each matter goes out with a later beat.
        """
        self._unsent[packet.worker if isinstance(packet, Broken) else type(packet)] = packet
        try:
            while self._unsent:
                orders.send(self._sock, next(iter(self._unsent.values())))
                del self._unsent[next(iter(self._unsent))]
        except BlockingIOError:
            return
        except OSError:
            os._exit(EXIT_FAILURE)


def listening(boot: Boot, descriptors: list[int]) -> dict[str, list[Listening]]:
    """A child's listening sockets, by what they are for."""
    rest = iter(zip(descriptors, boot.inherited, strict=False))  # an engine process gets more than sockets
    found: dict[str, list[Listening]] = {}
    for name, count in boot.sockets.items():
        found[name] = []
        for _ in range(count):
            descriptor, inherited = next(rest)
            sock = Listening(fileno=descriptor)
            sock.setblocking(False)
            sock.inherited = inherited
            found[name].append(sock)
    return found
