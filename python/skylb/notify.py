"""What the service manager is to know of this process (sd_notify(3)).

Each message is a datagram of ``NAME=VALUE`` lines. Without a manager nothing is sent.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

from skylb.clock import monotonic_ns
from skylb.errors import ConfigError

log = logging.getLogger("skylb.notify")

STATUS_S = 5.0
"""Between two looks whether the status has changed."""

STOP_MARGIN_S = 10.0
"""What the end takes besides the delay and the drain, at most: DNS records, error events, logs."""

ALIVE_PER_WATCHDOG = 3
"""Signs of life within the manager's time; sd_watchdog_enabled(3) asks for two at least."""


class Notifier:
    """Reports to the service manager: ready, reloading, stopping, alive, and a line of status.

    A message that cannot be sent goes out with the next one, so that a manager that is busy or restarts
    misses nothing.

    Args:
        address: of the manager's socket: a path, or a name that begins with ``@``; ``None`` for no manager.
        watchdog_s: the manager expects a sign of life at least so often; ``None`` where it does not.
        status: one line for people, asked for every `STATUS_S`.
        alive: whether to give signs of life.
    """

    def __init__(
        self,
        address: str | None,
        watchdog_s: float | None,
        status: Callable[[], str] = lambda: "",
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self._address = None if address is None else address.replace("@", "\0", 1)
        self._watchdog_s = watchdog_s
        self._status = status
        self._alive = alive
        self._serves = False
        self._said = ""
        self._unsent: dict[str, str] = {}
        """By name: at most one line of each."""
        self._complained = False
        self._heart: asyncio.TimerHandle | None = None

    @classmethod
    def of(
        cls,
        variables: Mapping[str, str],
        pid: int,
        status: Callable[[], str],
        alive: Callable[[], bool] = lambda: True,
    ) -> "Notifier":
        """As the manager's variables say.

        Raises:
            ConfigError: they are not what a manager writes.
        """
        faults = []
        address = variables.get("NOTIFY_SOCKET")
        if address is not None and (address[:1] not in {"/", "@"} or "\0" in address):
            faults.append(f"NOTIFY_SOCKET: {address!r}: expected /PATH or @NAME")
        text = variables.get("WATCHDOG_USEC")
        if variables.get("WATCHDOG_PID", str(pid)) != str(pid):
            text = None  # it is meant for another process
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text)):
            faults.append(f"WATCHDOG_USEC: {text!r}: expected a number of microseconds above 0")
        if faults:
            raise ConfigError(faults)
        return cls(address, None if text is None else int(text) / 1e6, status, alive)

    def ready(self, main_pid: int | None = None) -> None:
        """The process serves; from now on it also gives signs of life.

        ``main_pid``: this process, where it has taken the place of the one that the manager has started.
        """
        self._serves = True
        main = {} if main_pid is None else {"MAINPID": str(main_pid)}
        self._send({**main, "READY": "1", **self._new_status()})
        if self._heart is None and self._address is not None:
            self._beat()

    @contextmanager
    def reload(self) -> Iterator[None]:
        """Settings are read again within it; the manager is notified between `ready` and `stopping`."""
        if self._serves:
            self._send({"RELOADING": "1", "MONOTONIC_USEC": str(monotonic_ns() // 1000)})
        try:
            yield
        finally:
            if self._serves:
                self._send({"READY": "1", **self._new_status()})

    def stopping(self, within_s: float) -> None:
        """The end has begun; the manager should wait for it so long, and `STOP_MARGIN_S` more.

        A process that has never served says nothing: another one may be the service.
        """
        if not self._serves:
            return
        self._serves = False
        extend_us = round((within_s + STOP_MARGIN_S) * 1e6)
        self._send({"STOPPING": "1", "EXTEND_TIMEOUT_USEC": str(extend_us), **self._new_status()})

    def succeeded(self, pid: int) -> None:
        """Process ``pid`` is the service from now on, and reports alone.

        The manager hears that from the process that it knows (NotifyAccess=main, systemd.exec(5)).
        """
        self._serves = False
        self._send({"MAINPID": str(pid)})
        self.close()
        self._address = None

    def close(self) -> None:
        """No further signs of life."""
        if self._heart is not None:
            self._heart.cancel()
            self._heart = None

    def _beat(self) -> None:
        interval_s = STATUS_S
        if self._watchdog_s is not None:
            interval_s = min(interval_s, self._watchdog_s / ALIVE_PER_WATCHDOG)
            self._send({"WATCHDOG": "1", **self._new_status()} if self._alive() else self._new_status())
        else:
            self._send(self._new_status())
        self._heart = asyncio.get_running_loop().call_later(interval_s, self._beat)

    def _new_status(self) -> dict[str, str]:
        """The status, if it is another one."""
        if self._address is None or (status := self._status()) == self._said:
            return {}
        self._said = status
        return {"STATUS": status}

    def _send(self, lines: Mapping[str, str]) -> None:
        if self._address is None:
            return
        self._unsent |= lines
        if not self._unsent:
            return
        message = "\n".join(f"{name}={value}" for name, value in self._unsent.items())
        try:
            with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._complained:
                log.warning("the service manager cannot be reached: %s; tried again", error.strerror or error)
            self._complained = True
            return
        self._complained = False
        self._unsent.clear()
