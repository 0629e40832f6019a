"""Records by DNS UPDATE (RFC 2136), signed with TSIG (RFC 8945): BIND, Knot, PowerDNS and others take it.

Under the service's NAME are the addresses of all balancers that serve. Under BALANCER.NAME are those of one.
They also say what has to leave NAME when that one is dead. Each update is one message, which the server
carries out as a whole or not at all.
"""

import base64
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update

from skylb.addresses import IpAddress
from skylb.control.naming.provider import DnsError, by_type

TIMEOUT_S = 5.0
KEY_EXPECTED = "expected ALGORITHM:NAME:BASE64, with hmac-sha256 for instance"
TYPES = (dns.rdatatype.A, dns.rdatatype.AAAA)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the records are kept.

    Attributes:
        host: IP address of the zone's primary server.
        port: its TCP port.
        zone: the zone.
        name: the name that clients ask for, in the zone.
        ttl_s: how long resolvers may keep an answer.
    """

    host: str
    port: int
    zone: str
    name: str
    ttl_s: int


def parse_key(text: str) -> dns.tsig.Key:
    """Reads ``ALGORITHM:NAME:BASE64``, as ``nsupdate -y`` takes it.

    Raises:
        ValueError: it is no such key; the message does not show what it holds.
    """
    try:
        algorithm, name, secret = text.split(":")
        key = dns.tsig.Key(name, base64.b64decode(secret, validate=True), algorithm)
    except (ValueError, dns.exception.DNSException):
        raise ValueError(KEY_EXPECTED) from None
    if key.algorithm not in dns.tsig.mac_sizes or not key.secret:
        raise ValueError(KEY_EXPECTED)
    return key


class Rfc2136:
    """Keeps records at an authoritative server.

    Args:
        place: where.
        key: what updates and questions are signed with; ``None`` where the server trusts the address.

    Raises:
        ValueError: a name is no domain name, or not in the zone.
    """

    def __init__(self, place: Place, key: dns.tsig.Key | None) -> None:
        try:
            self._zone = dns.name.from_text(place.zone)
            self._name = dns.name.from_text(place.name)
        except dns.exception.DNSException as error:
            raise ValueError(str(error)) from error
        if not self._name.is_subdomain(self._zone):
            raise ValueError(f"{place.name} is not in the zone {place.zone}")
        self._place = place
        self._key = key

    async def publish(self, balancer: str, addresses: Collection[IpAddress]) -> bool:
        """See `Provider.publish`."""
        own = self._own(balancer)
        wanted = {str(address) for address in addresses}
        known, everybody = await self._read(own), await self._read(self._name)
        if known == wanted and wanted <= everybody:
            return False
        update = dns.update.UpdateMessage(self._zone)
        self._remove(update, self._name, known - wanted)
        update.delete(own)
        for kind, texts in by_type(addresses).items():
            for text in texts:
                for name in (own, self._name):
                    update.add(name, self._place.ttl_s, kind, text)
        await self._send(update)
        return True

    async def withdraw(self, balancer: str, *, unless_last: bool = False) -> bool:
        """See `Provider.withdraw`."""
        own = self._own(balancer)
        known = await self._read(own)
        if not known:
            return False
        if unless_last and not await self._read(self._name) - known:
            return False
        update = dns.update.UpdateMessage(self._zone)
        for kind, texts in by_type(map(ipaddress.ip_address, known)).items():
            if texts:  # prerequisite: nobody has changed them meanwhile
                update.present(own, dns.rrset.from_text(own, 0, "IN", kind, *texts).to_rdataset())
        self._remove(update, self._name, known)
        update.delete(own)
        await self._send(update)
        return True

    def _own(self, balancer: str) -> dns.name.Name:
        try:
            return dns.name.from_text(balancer, origin=self._name)
        except dns.exception.DNSException as error:
            raise DnsError(f"{balancer} cannot be part of a domain name: {error}") from error

    def _remove(self, update: dns.update.UpdateMessage, name: dns.name.Name, texts: Collection[str]) -> None:
        for kind, found in by_type(map(ipaddress.ip_address, texts)).items():
            for text in found:
                update.delete(name, kind, text)

    async def _read(self, name: dns.name.Name) -> set[str]:
        """Addresses under a name, as the server itself knows them."""
        found = set()
        for kind in TYPES:
            answer = await self._ask(dns.message.make_query(name, kind, flags=0))
            if answer.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
                raise DnsError(f"{name}: {self._server} says {dns.rcode.to_text(answer.rcode())}")
            records = answer.get_rrset(answer.answer, name, dns.rdataclass.IN, kind)
            found |= {str(record) for record in records or ()}
        return found

    async def _send(self, update: dns.update.UpdateMessage) -> None:
        answer = await self._ask(update)
        if answer.rcode() != dns.rcode.NOERROR:
            text = dns.rcode.to_text(answer.rcode())
            raise DnsError(f"{self._name}: {self._server} does not take the update: {text}")

    async def _ask(self, message: dns.message.Message) -> dns.message.Message:
        if self._key is not None:
            message.use_tsig(self._key)
        place = self._place
        try:
            return await dns.asyncquery.tcp(message, place.host, TIMEOUT_S, place.port)
        except (dns.exception.DNSException, OSError, EOFError) as error:
            reason = str(error) or type(error).__name__
            raise DnsError(f"{self._name}: {self._server}: {reason}") from error

    @property
    def _server(self) -> str:
        return f"{self._place.host} port {self._place.port}"
