"""What distinguishes one engine's metrics from another's."""

from dataclasses import dataclass, field
from urllib.parse import urlencode

from skylb._core import metric_names


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's way of naming its metrics.

    Args:
        name: for logs and ``/state``.
        number: ``DIALECT_*`` of the core, whose scanner knows the names.
        mark: prefix that the engine's metrics have and no other's.
    """

    name: str
    number: int
    mark: bytes
    narrowed_path: str = field(init=False)
    """Where a Prometheus client library answers with nothing but the metrics that are read. Engines mount
    its ASGI application below ``/metrics``, and it takes ``name[]``; ``/metrics`` itself may be answered by
    a route before it that does not (vLLM's does not)."""

    def __post_init__(self) -> None:
        query = urlencode([("name[]", name) for name in metric_names(self.number)])
        object.__setattr__(self, "narrowed_path", f"/metrics/?{query}")
