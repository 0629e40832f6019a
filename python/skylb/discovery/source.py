"""What a source of replicas is, what it is given, and what it offers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from skylb.types import Address

REPLICAS_MAX = 4096
"""Replicas of one balancer; more are left out and told once per change."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a source knows of a replica besides its address; empty where it does not know.

    Only ``uid`` decides something: another one at the same address is another server. The rest is shown.
    """

    instance: str = ""
    """What runs the replica, as the source calls it: ``NAMESPACE/POD``."""
    uid: str = ""
    node: str = ""
    zone: str = ""
    role: str = ""
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """A replica as a source offers it: resolved, without id.

    ``name`` is what operators call it, ``authority`` the value of ``Host``.
    """

    name: str
    address: Address
    authority: str
    region: str | None = None
    """Empty where it is not known; ``None``: this balancer's."""
    adopted: bool = False
    """It is a dead peer's: it goes back, and is not told to peers as ours."""
    draining: bool = False
    """It is about to leave: it gets no new requests, and ends those that it has."""
    description: Description | None = None


Offer = Callable[[Sequence[Offered]], None]
"""Takes the whole set of replicas that a source has now."""


@dataclass(frozen=True, slots=True)
class Site:
    """What a source is given by the control plane."""

    offer: Callable[[str, Sequence[Offered]], None]
    """Takes the source's name, and the whole set of replicas that it has now."""
    is_up: Callable[[str], bool]
    """Whether the replica of that name answers at present."""
    region: str = ""
    """This balancer's."""


PENDING = "no answer yet"


class Lack(StrEnum):
    """What a source lacks, by its kind."""

    UNRESOLVED = "unresolved"
    """DNS: the address of a name."""
    UNREAD = "unread"
    """A file: its present content."""
    UNLISTED = "unlisted"
    """Kubernetes: its list of endpoints, or some of them."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a source may offer less than there is, or what is out of date."""

    lack: Lack
    why: str

    def __str__(self) -> str:
        """As operators see it."""
        return f"{self.lack}: {self.why}"


class Source(Protocol):
    """Where replicas come from. A source offers the whole set each time that it changes.

    What it cannot read or resolve later on changes nothing: the last good set stays, and the log says why.
    """

    name: str
    """What the fleet, metrics and logs call it."""
    passed: asyncio.Event
    """Set once everything was looked up, or found out of reach."""

    async def load(self) -> None:
        """Reads what must be there at start, and offers what needs no looking up.

        Raises:
            ConfigError: it cannot be understood.
        """

    async def run(self) -> None:
        """Looks again and again, until cancelled."""

    async def look(self) -> None:
        """Looks at once, if what it reads may have changed: an operator asks for it."""

    def troubles(self) -> dict[str, Trouble]:
        """What is lacking now, by the name of a replica or of the source; also what was not looked up yet."""

    @property
    def seen_ns(self) -> int | None:
        """When what it offers was last known to be true, on the monotonic clock; ``None``: it cannot age."""
