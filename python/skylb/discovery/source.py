"""What a source of replicas is, what it is given, and what it offers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from skylb.types import Address

REPLICAS_MAX = 4096
"""Replicas of one balancer; more are left out and told once per change."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A replica as a source offers it: resolved, without id.

    ``name`` is what operators call it, ``authority`` the value of ``Host``.
    """

    name: str
    address: Address
    authority: str
    region: str | None = None
    """Of an adopted replica, empty where it is not known; ``None``: this balancer's."""


Offer = Callable[[Sequence[Offered]], None]
"""Takes the whole set of replicas that a source has now."""


@dataclass(frozen=True, slots=True)
class Site:
    """What a source is given by the control plane."""

    offer: Callable[[str, Sequence[Offered]], None]
    """Takes the source's name, and the whole set of replicas that it has now."""
    is_up: Callable[[str], bool]
    """Whether the replica of that name answers at present."""


class Source(Protocol):
    """Where replicas come from. A source offers the whole set each time that it changes.

    What it cannot read or resolve later on changes nothing: the last good set stays, and the log says why.
    """

    name: str
    """For the log, where its task fails."""
    passed: asyncio.Event
    """Set once everything was looked up."""

    async def load(self) -> None:
        """Reads what must be there at start, and offers what needs no looking up.

        Raises:
            ConfigError: it cannot be understood.
        """

    async def run(self) -> None:
        """Looks again and again, until cancelled."""

    async def look(self) -> None:
        """Looks at once, if what it reads may have changed: an operator asks for it."""

    def unresolved(self) -> dict[str, str]:
        """Names of replicas without address, with the reason."""
