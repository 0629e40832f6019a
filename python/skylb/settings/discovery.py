"""Settings of how the fleet is found, and what its replicas serve."""

from typing import Annotated, Literal

from pydantic import Field

from skylb.settings.values import Group, Seconds

DnsFamily = Literal["ipv4", "ipv6", "all"]


class DiscoverySettings(Group):
    """How often the fleet and its models are looked at again."""

    file_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Time between two checks of --replicas-file, --peers-file and --keys-file for "
            "changes.",
        ),
    ] = 1.0
    dns_s: Annotated[Seconds, Field(gt=0, description="Time between two resolutions of names.")] = 5.0
    dns_family: Annotated[
        DnsFamily,
        Field(
            description="Addresses to take where a name of --replicas-dns or a Service of "
            "--kubernetes-selector has both families. With all, each address is a replica of its own."
        ),
    ] = "ipv4"
    models_s: Annotated[
        Seconds, Field(gt=0, description="Time between two readings of a replica's /v1/models.")
    ] = 10.0
