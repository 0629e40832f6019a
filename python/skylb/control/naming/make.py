"""Makes the DNS provider that the settings name."""

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import Metric

from skylb.config import Settings
from skylb.control.naming.keeper import Keeper, Wish
from skylb.control.naming.provider import Provider
from skylb.errors import ConfigError
from skylb.keyfiles import read_secret
from skylb.tasks import TaskGroup


def make(settings: Settings) -> Provider | None:
    """The provider that the settings name.

    Raises:
        ConfigError: it cannot be set up from them.
    """
    own = settings.dns
    if own.provider is None or own.name is None or own.zone is None:
        return None
    try:
        if own.provider == "route53":
            from skylb.control.naming.route53 import LatencyRecord, Route53  # noqa: PLC0415 - needs boto3

            region = own.aws_region or settings.mesh.region
            return Route53(LatencyRecord(own.zone, own.name, region, own.ttl_s, own.health_check))
        from skylb.control.naming.rfc2136 import Place, Rfc2136, parse_key  # noqa: PLC0415 - needs dnspython

        if own.server is None:
            return None
        key = read_secret(own.key_file, "dns.key_file")
        place = Place(own.server.host, own.server.port, own.zone, own.name, own.ttl_s)
        return Rfc2136(place, parse_key(key) if key is not None else None)
    except ValueError as error:
        raise ConfigError([f"dns: {error}"]) from error


class Naming:
    """DNS as a part of a process.

    Args:
        settings: which records, and where.
        wish: what should be there.
        on_failure: gets the name of a task that ended with an error, and the error.

    Raises:
        ConfigError: the provider cannot be set up.
    """

    def __init__(
        self,
        settings: Settings,
        wish: Callable[[], Wish],
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        provider = make(settings)
        own = settings.dns
        self._settings = settings
        self._tasks = TaskGroup(on_failure)
        self._keeper = Keeper(provider, settings.mesh.balancer, own.address, wish) if provider else None

    def start(self) -> None:
        """Keeps the records from now on."""
        if self._keeper is not None:
            self._tasks.start(self._keeper.run(), name="DNS")

    async def close(self) -> None:
        """Takes this balancer out of the answer."""
        await self._tasks.stop()
        if self._keeper is not None:
            await self._keeper.close()

    async def let_go(self) -> None:
        """Leaves the records as they are: another process keeps them."""
        await self._tasks.stop()
        self._keeper = None

    def renew(self) -> None:
        """Reads the key file again.

        Raises:
            ConfigError: it is no good; what was read before stays in use.
        """
        if self._keeper is not None and (provider := make(self._settings)) is not None:
            self._keeper.provider = provider

    def view(self) -> dict[str, Any] | None:
        """For ``/state``."""
        if self._keeper is None:
            return None
        figures = self._keeper.figures
        return {
            "name": self._settings.dns.name,
            "published": figures.published,
            "withdrawn": sorted(figures.withdrawn),
            "fault": figures.fault or None,
        }

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``."""
        if self._keeper is not None:
            yield from self._keeper.families()
