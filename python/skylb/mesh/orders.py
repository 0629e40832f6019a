"""Operators' orders for regions: which order counts, and which to keep for peers that are away."""

from collections.abc import Collection

from skylb.mesh.frames import Order
from skylb.settings.mesh import PEERS_MAX

AHEAD_NS = 86_400 * 1_000_000_000
"""How far an order's wall clock may be ahead of ours, or of the order that it replaces. Without a bound an
order from the far future would be the last for its region."""

UNKNOWN_REGIONS_MAX = PEERS_MAX
"""Orders for regions in which no balancer is known (yet); of more, those that came first are forgotten."""

ORDERS_MAX = UNKNOWN_REGIONS_MAX + PEERS_MAX + 1
"""As many regions as there are peers, and this balancer's."""


class Orders:
    """The last order for each region."""

    def __init__(self) -> None:
        self._by_region: dict[str, Order] = {}

    def of(self, region: str) -> Order | None:
        """The order for a region."""
        return self._by_region.get(region)

    def all(self) -> list[Order]:
        """For a peer that may have missed them."""
        return list(self._by_region.values())

    def next_ns(self, region: str, unix_ns: int) -> int:
        """The time of an order that is given here: after the one before, whose clock may be ahead."""
        earlier = self._by_region.get(region)
        return unix_ns if earlier is None else max(unix_ns, earlier.issued_unix_ns + 1)

    def is_news(self, order: Order) -> bool:
        """Whether an order is later than the one before."""
        known = self._by_region.get(order.region)
        return known is None or known.issued_unix_ns < order.issued_unix_ns

    def is_ahead(self, order: Order, unix_ns: int) -> bool:
        """Whether an order is of a time that no sound clock can show."""
        return order.issued_unix_ns > self.next_ns(order.region, unix_ns + AHEAD_NS)

    def remember(self, order: Order, regions: Collection[str]) -> None:
        """Replaces the order before; ``regions`` are those in which a balancer is known."""
        self._by_region.pop(order.region, None)
        self._by_region[order.region] = order
        unknown = [region for region in self._by_region if region not in regions]
        for region in unknown[:-UNKNOWN_REGIONS_MAX]:
            del self._by_region[region]
