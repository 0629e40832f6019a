"""Settings of DNS: the name that clients ask for, and who keeps its records."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from skylb.addresses import IpAddress, ListenAddress, parse_ip
from skylb.errors import missing
from skylb.settings.values import FILE, LISTEN, Count, Expected, File, Group, Listen

ADDRESSES_MAX = 16


def _ip(value: object) -> object:
    return parse_ip(value) if isinstance(value, str) else value


Ip = Annotated[IpAddress, BeforeValidator(_ip), PlainSerializer(str)]

NEEDED = {"rfc2136": ("name", "address", "zone", "server"), "route53": ("name", "address", "zone")}
"""Settings that a provider cannot do without."""

LIBRARIES = {"rfc2136": ("dns", "dnspython"), "route53": ("boto3", "boto3")}
"""What a provider imports, and the distribution that has it."""


class DnsSettings(Group):
    """This balancer in DNS: in the answer while it serves, out of it when it is drained or dead."""

    provider: Annotated[
        Literal["rfc2136", "route53"] | None,
        Field(
            description="Where the DNS records are: a server that takes RFC 2136 updates, or Amazon Route "
            "53. Without it SkyLB changes no records."
        ),
    ] = None
    name: Annotated[str | None, Field(max_length=253, description="Domain name that clients resolve.")] = None
    address: Annotated[
        tuple[Ip, ...],
        Expected("an IP address"),
        Field(max_length=ADDRESSES_MAX, description="Address at which clients reach this balancer."),
    ] = ()
    zone: Annotated[
        str | None, Field(max_length=253, description="Zone of the records: its name, or its ID at Route 53.")
    ] = None
    ttl_s: Annotated[
        Count,
        Field(
            ge=1,
            le=86_400,
            description="Time for which resolvers may keep an answer. A shorter one moves clients away "
            "from a dead region sooner.",
        ),
    ] = 20
    server: Annotated[
        Listen | None, LISTEN, Field(description="rfc2136: IP address and port of the zone's primary server.")
    ] = None
    key_file: Annotated[
        File | None,
        FILE,
        Field(
            description="rfc2136: file with the TSIG key as ALGORITHM:NAME:BASE64, the form that nsupdate "
            "takes."
        ),
    ] = None
    aws_region: Annotated[
        str | None,
        Field(
            max_length=64,
            description="route53: AWS region whose users are near. Without it, SkyLB uses the value of "
            "--region.",
        ),
    ] = None
    health_check: Annotated[
        str | None,
        Field(
            max_length=64,
            description="route53: ID of a health check. Route 53 then answers with this balancer only "
            "while the check passes.",
        ),
    ] = None

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        if self.provider is None:
            given = {
                name for name in ("name", "address", "zone", "server", "key_file") if getattr(self, name)
            }
            for name in sorted(given):
                yield (
                    {f"dns.{name}", "dns.provider"},
                    f"dns.{name} is given without dns.provider: expected both",
                )
            return
        for name in NEEDED[self.provider]:
            if not getattr(self, name):
                yield (
                    {f"dns.{name}", "dns.provider"},
                    f"dns.provider is {self.provider} without dns.{name}: expected both",
                )
        if self.server is not None and not _is_ip(self.server):
            yield {"dns.server"}, f"dns.server: {self.server}: expected an IP address and a port"
        for address in self.address:
            if address.is_unspecified or address.is_multicast:
                yield {"dns.address"}, f"dns.address: {address}: expected the address of one machine"
        module, distribution = LIBRARIES[self.provider]
        if find_spec(module) is None:
            yield {"dns.provider"}, f"dns.provider: {missing(distribution)}"


def _is_ip(address: ListenAddress) -> bool:
    try:
        parse_ip(address.host)
    except ValueError:
        return False
    return bool(address.port)
