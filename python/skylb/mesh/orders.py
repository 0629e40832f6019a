"""Operators' orders for regions: which order counts, and which to keep for peers that are away."""

from collections.abc import Collection

from skylb.mesh.frames import Order
from skylb.settings.mesh import PEERS_MAX

AHEAD_NS = 86_400 * 1_000_000_000
"""How far an order's wall clock may be ahead of ours, or of the order that it replaces. Without a bound an
order from the far future would be the last for its region."""

WITHIN_S_MAX = 86_400
"""The longest time within which requests are to leave, and the longest notice that a replica ends."""

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

    def new(self, region: str, evacuating: bool, within_s: float | None, unix_ns: int) -> Order:
        """An order that is given here; streams leave the region within ``within_s``; ``None``: never.

        The order given last counts, also where the clock behind the one before was ahead.
        """
        leave_ns = 0 if within_s is None else unix_ns + round(within_s * 1e9)
        return Order(region, evacuating, self.next_ns(region, unix_ns), leave_ns)

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


def leave_ns(order: Order, unix_ns: int, now_ns: int) -> int | None:
    """When streams leave the region, on the monotonic clock, which is at ``now_ns``; ``None``: never.

    A wall clock that is ahead by more than the longest time of an order makes it no later than that.
    """
    if not order.leave_unix_ns:
        return None
    return now_ns + min(max(0, order.leave_unix_ns - unix_ns), WITHIN_S_MAX * 1_000_000_000)
