"""Errors of SkyLB. Each type says which side is at fault and what can be done."""

from __future__ import annotations

from skylb import obtain


class SkyLBError(Exception):
    """Base of all errors that are ours."""


class ConfigError(SkyLBError):
    """The configuration has faults; ``faults`` lists all of them, one sentence each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class ConnectError(SkyLBError):
    """A replica could not be reached; nothing was sent.

    Attributes:
        refused: nobody is there, as far as the network says; else no connection came about in time.
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class ShortageError(ConnectError):
    """This machine lacked what a connection needs (descriptors, ports, memory): no replica is to blame."""


class UpstreamClosedError(SkyLBError):
    """A replica closed the connection before its response was complete."""


class UnreadableError(SkyLBError):
    """A replica answered what is no response, or one that is too long."""


class UpstreamTimeoutError(SkyLBError):
    """A replica did not answer within the time the phase allows."""


class ListenError(SkyLBError):
    """An address cannot be bound: it is in use, not ours, or not permitted."""

    def __init__(self, message: str, *, in_use: bool = False) -> None:
        super().__init__(message)
        self.in_use = in_use


class TaskFailedError(SkyLBError):
    """A task that runs as long as the process ended with an error: the process cannot go on."""


def missing(library: str) -> str:
    """What to do where an optional library is not there; its name is that of its distribution.

    Raises:
        KeyError: no extra has it.
    """
    return f"{library} is not installed: {obtain.command(obtain.EXTRAS[library])}"
