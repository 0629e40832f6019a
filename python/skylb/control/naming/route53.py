"""Records at Amazon Route 53: one latency record per balancer, so that clients are sent to the nearest.

A latency record belongs to an AWS region, and Route 53 takes one of them per region and name. With several
balancers in one region, give all but one no DNS settings. Or put a load balancer with one address before
them.
"""

import asyncio
import ipaddress
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from skylb.addresses import IpAddress
from skylb.control.naming.provider import DnsError, by_type

TIMEOUT_S = 5.0
PAGES_MAX = 100
"""Of 100 record sets each, when the name's records are read."""

TYPES = ("A", "AAAA")


class _Client(Protocol):
    def list_resource_record_sets(self, **arguments: Any) -> dict[str, Any]: ...

    def change_resource_record_sets(self, **arguments: Any) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class LatencyRecord:
    """What this balancer's record says beside its addresses.

    Attributes:
        zone: id of the hosted zone.
        name: the name that clients ask for.
        aws_region: whose users are near, ``eu-central-1`` for instance.
        ttl_s: how long resolvers may keep an answer.
        health_check: id of a Route 53 health check that decides as well, if any.
    """

    zone: str
    name: str
    aws_region: str
    ttl_s: int
    health_check: str | None = None


class Route53:
    """Keeps records in a hosted zone; credentials and endpoint come from boto3's usual places.

    Args:
        record: this balancer's.

    Raises:
        ValueError: boto3 cannot be set up.
    """

    def __init__(self, record: LatencyRecord) -> None:
        self._record = record
        self._name = record.name.rstrip(".").lower() + "."
        limits = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 2})
        try:
            self._client: _Client = boto3.client("route53", config=limits, region_name="us-east-1")
        except BotoCoreError as error:
            raise ValueError(str(error)) from error

    async def publish(self, balancer: str, addresses: Collection[IpAddress]) -> bool:
        """See `Provider.publish`."""
        return await asyncio.to_thread(self._publish, balancer, addresses)

    async def withdraw(self, balancer: str, *, unless_last: bool = False) -> bool:
        """See `Provider.withdraw`."""
        return await asyncio.to_thread(self._withdraw, balancer, unless_last)

    def _publish(self, balancer: str, addresses: Collection[IpAddress]) -> bool:
        wanted = [
            self._record_set(balancer, kind, texts) for kind, texts in by_type(addresses).items() if texts
        ]
        known = [found for found in self._records() if found.get("SetIdentifier") == balancer]
        kinds = {record["Type"] for record in wanted}
        changes = [("UPSERT", record) for record in wanted if _plain(record) not in map(_plain, known)]
        changes += [("DELETE", record) for record in known if record["Type"] not in kinds]
        return self._change(changes)

    def _withdraw(self, balancer: str, unless_last: bool) -> bool:
        records = list(self._records())
        known = [record for record in records if record.get("SetIdentifier") == balancer]
        if unless_last and len(known) == len(records):
            return False
        return self._change([("DELETE", record) for record in known])

    def _record_set(self, balancer: str, kind: str, texts: list[str]) -> dict[str, Any]:
        record: dict[str, Any] = {
            "Name": self._name,
            "Type": kind,
            "SetIdentifier": balancer,
            "Region": self._record.aws_region,
            "TTL": self._record.ttl_s,
            "ResourceRecords": [{"Value": text} for text in texts],
        }
        if self._record.health_check is not None:
            record["HealthCheckId"] = self._record.health_check
        return record

    def _records(self) -> Iterator[dict[str, Any]]:
        """All address records under the name."""
        start: dict[str, Any] = {"StartRecordName": self._name, "StartRecordType": TYPES[0]}
        for _ in range(PAGES_MAX):
            try:
                page = self._client.list_resource_record_sets(HostedZoneId=self._record.zone, **start)
            except (BotoCoreError, ClientError) as error:
                raise DnsError(f"{self._name}: Route 53: {error}") from error
            for record in page["ResourceRecordSets"]:
                if record["Name"].lower() == self._name and record["Type"] in TYPES:
                    yield record
            following = {
                f"StartRecord{part}": page[f"NextRecord{part}"]
                for part in ("Name", "Type", "Identifier")
                if f"NextRecord{part}" in page
            }
            # Sorted by name: what follows another name is not ours.
            if not page["IsTruncated"] or following.get("StartRecordName", "").lower() != self._name:
                return
            start = following

    def _change(self, changes: list[tuple[str, dict[str, Any]]]) -> bool:
        if not changes:
            return False
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": record} for action, record in changes]}
        try:
            self._client.change_resource_record_sets(HostedZoneId=self._record.zone, ChangeBatch=batch)
        except (BotoCoreError, ClientError) as error:
            raise DnsError(f"{self._name}: Route 53: {error}") from error
        return True


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """A record set in a form that compares: addresses as a sorted list."""
    values = sorted(ipaddress.ip_address(found["Value"]) for found in record.get("ResourceRecords", ()))
    return {**record, "ResourceRecords": values}
