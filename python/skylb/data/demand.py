"""How many requests each model has here: what engines are scaled by.

Waiting requests alone would not do. A fleet that just keeps up has none, and would be scaled down. So there
are two figures, and an autoscaler divides their sum by what one replica should run at once.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from skylb.data.frontend import Frontend
from skylb.data.phases import HOLD
from skylb.router import Router

MODELS_MAX = 64
"""As many as the counts of requests that ended name."""

OTHER = "other"


class Demand:
    """Counts requests by model when it is asked: nothing is kept for each request, so nothing can leak.

    A model that was listed once keeps its figures, at 0: an autoscaler learns nothing from a series that is
    not there.

    Args:
        frontends: whose requests count.
        router: knows which models there are; clients may write any name.
    """

    def __init__(self, frontends: Sequence[Frontend], router: Router) -> None:
        self._frontends = frontends
        self._router = router
        self._models: dict[str, None] = {}

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``. Takes about 0.3 ms per 1,000 requests."""
        for model, _ in self._router.models():
            if len(self._models) >= MODELS_MAX:
                break
            self._models[model] = None
        held: list[str | None] = []
        in_flight: list[str | None] = []
        for frontend in self._frontends:
            for exchange in frontend.exchanges():
                if not exchange.in_engine:
                    continue
                if exchange.phase is HOLD:
                    held.append(exchange.request.model)
                elif exchange.legs and exchange.legs[-1].forward is None:
                    in_flight.append(exchange.request.model)
        yield self._family("skylb_model_held_requests", "Requests in the hold, by model.", held)
        yield self._family("skylb_model_in_flight_requests", "Our requests at replicas, by model.", in_flight)

    def _family(self, name: str, text: str, asked: list[str | None]) -> Metric:
        counts = Counter(asked)
        family = GaugeMetricFamily(name, text, labels=("model",))
        for model in self._models:
            family.add_metric((model,), counts.pop(model, 0))
        family.add_metric((OTHER,), counts.total())
        return family
