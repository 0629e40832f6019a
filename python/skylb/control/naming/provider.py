"""The interface of a DNS provider."""

from collections.abc import Collection, Iterable
from typing import Protocol

from skylb.addresses import IpAddress
from skylb.errors import SkyLBError


class DnsError(SkyLBError):
    """A provider did not do what it was asked to; the message says why."""


class Provider(Protocol):
    """Records under one name: who serves it, by balancer.

    Every method compares first and changes only what is not as it should be, so that calling it again
    and again costs questions and no changes.
    """

    async def publish(self, balancer: str, addresses: Collection[IpAddress]) -> bool:
        """Puts a balancer into the answer, under exactly these addresses.

        Returns:
            Whether anything had to be changed.

        Raises:
            DnsError: it is not known to be there.
        """

    async def withdraw(self, balancer: str, *, unless_last: bool = False) -> bool:
        """Takes a balancer out of the answer.

        Args:
            balancer: its name.
            unless_last: leave it when nothing else would be in the answer.

        Returns:
            Whether anything had to be changed.

        Raises:
            DnsError: it is not known to be gone.
        """


def record_type(address: IpAddress) -> str:
    """``A`` or ``AAAA``."""
    return "A" if address.version == 4 else "AAAA"


def by_type(addresses: Iterable[IpAddress]) -> dict[str, list[str]]:
    """Addresses as text, sorted, by the type of their records."""
    found: dict[str, list[str]] = {"A": [], "AAAA": []}
    for address in sorted(addresses, key=lambda address: (address.version, int(address))):
        found[record_type(address)].append(str(address))
    return found
