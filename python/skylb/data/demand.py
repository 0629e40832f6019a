"""How many requests each model has here: what engines are scaled by.

Waiting requests alone would not do. A fleet that just keeps up has none, and would be scaled down. So there
are two figures, and an autoscaler divides their sum by what one replica should run at once.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric

from skylb.data.phases import HOLD
from skylb.data.proxy import Exchange
from skylb.router import Router

MODELS_MAX = 64
"""As many as the counts of requests that ended name."""

OTHER = "other"
"""The rest. A model of this name shares the label, as in the counts."""


class Demanding(Protocol):
    """Whose requests count."""

    def exchanges(self) -> Iterator[Exchange]:
        """The requests under way."""


def counted(frontends: Sequence[Demanding]) -> tuple[Counter[str | None], Counter[str | None]]:
    """Requests by model: those in the hold, and those at replicas of ours."""
    held: Counter[str | None] = Counter()
    in_flight: Counter[str | None] = Counter()
    for frontend in frontends:
        for exchange in frontend.exchanges():
            if not exchange.in_engine:
                continue
            if exchange.phase is HOLD:
                held[exchange.request.model] += 1
            elif exchange.legs and exchange.legs[-1].forward is None:
                in_flight[exchange.request.model] += 1
    return held, in_flight


class Demand:
    """Counts requests by model when it is asked: nothing is kept for each request, so nothing can leak.

    A model that was listed once keeps its figures, at 0: an autoscaler learns nothing from a series that is
    not there. Where the bound is reached, the one that has been gone for longest makes room for a new one.

    Args:
        frontends: whose requests count.
        router: knows which models there are; clients may write any name.
    """

    def __init__(self, frontends: Sequence[Demanding], router: Router) -> None:
        self._frontends = frontends
        self.elsewhere: Callable[[str], Mapping[str, int]] | None = None
        """Tells what other processes count, by model: ``held`` and ``in_flight``."""
        self._router = router
        self._models: dict[str, None] = {}
        """Those that have figures of their own, the one that was listed last at the end."""

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``. Takes about 0.3 ms per 1,000 requests."""
        held, in_flight = counted(self._frontends)
        if self.elsewhere is not None:
            held.update(self.elsewhere("held"))
            in_flight.update(self.elsewhere("in_flight"))
        listed = [name for name, _ in self._router.models() if name != OTHER]
        self._list(listed, held.keys() | in_flight.keys())
        yield self._family("skylb_model_held_requests", "Requests in the hold, by model.", held)
        yield self._family("skylb_model_in_flight_requests", "Our requests at replicas, by model.", in_flight)

    def _list(self, listed: Sequence[str], asked: Set[str | None]) -> None:
        """Gives models that are listed figures of their own; ``asked`` are those with requests now."""
        for name in listed:
            if name in self._models:
                del self._models[name]
                self._models[name] = None  # listed last of all
        kept = {*asked, *listed}
        gone = deque(name for name in self._models if name not in kept)
        for name in listed:
            if name in self._models:
                continue
            if len(self._models) >= MODELS_MAX:
                if not gone:
                    return
                del self._models[gone.popleft()]
            self._models[name] = None

    def _family(self, name: str, text: str, counts: Counter[str | None]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=("model",))
        for model in self._models:
            family.add_metric((model,), counts.pop(model, 0))
        family.add_metric((OTHER,), counts.total())
        return family
