"""How engines name their metrics: the core's table, with what a probe needs besides."""

from dataclasses import dataclass, field
from urllib.parse import urlencode

from skylb._core import Snapshot, dialects, scan_metrics


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's way of naming its metrics.

    Args:
        name: for logs, ``/state`` and the core, whose scanner knows the names.
        prefix: what the engine's metrics begin with, and no other's.
        metrics: the names that are read.
    """

    name: str
    prefix: bytes
    metrics: list[str]
    narrowed_path: str = field(init=False)
    """Where a Prometheus client library answers with nothing but the metrics that are read. Engines mount
    its ASGI application below ``/metrics``, and it takes ``name[]``; ``/metrics`` itself may be answered by
    a route before it that does not (vLLM's does not)."""

    def __post_init__(self) -> None:
        query = urlencode([("name[]", name) for name in self.metrics])
        object.__setattr__(self, "narrowed_path", f"/metrics/?{query}")


DIALECTS = tuple(Dialect(*row) for row in dialects())


def read_page(page: bytes, expected: Dialect | None) -> tuple[Snapshot, Dialect] | None:
    """What a metrics page says, and in which dialect.

    Args:
        page: body of a ``/metrics`` response.
        expected: dialect of the replica's last readable page, tried without looking for its prefix.

    Returns:
        ``None`` where running or waiting requests are not told: the replica is then blind. A missing
        name is unknown, not zero.
    """
    if expected is not None:
        snapshot = scan_metrics(page, expected.name)
        if snapshot.running is not None and snapshot.waiting is not None:
            return snapshot, expected
    for dialect in DIALECTS:
        if dialect is not expected and dialect.prefix in page:
            snapshot = scan_metrics(page, dialect.name)
            if snapshot.running is not None and snapshot.waiting is not None:
                return snapshot, dialect
    return None
