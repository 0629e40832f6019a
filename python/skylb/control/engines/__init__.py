"""How engines report their load: one dialect of metric names each."""

from skylb._core import Snapshot, scan_metrics
from skylb.control.engines.dialect import Dialect
from skylb.control.engines.sglang import SGLANG
from skylb.control.engines.vllm import VLLM

__all__ = ["DIALECTS", "SGLANG", "VLLM", "Dialect", "read_page"]

DIALECTS = (VLLM, SGLANG)


def read_page(page: bytes, expected: Dialect | None) -> tuple[Snapshot, Dialect] | None:
    """What a metrics page says, and in which dialect.

    Args:
        page: body of a ``/metrics`` response.
        expected: dialect of the replica's last readable page, tried without looking for its mark.

    Returns:
        ``None`` where running or waiting requests are not told: the replica is then blind. A missing
        name is unknown, not zero.
    """
    if expected is not None:
        snapshot = scan_metrics(page, expected.number)
        if snapshot.running is not None and snapshot.waiting is not None:
            return snapshot, expected
    for dialect in DIALECTS:
        if dialect is not expected and dialect.mark in page:
            snapshot = scan_metrics(page, dialect.number)
            if snapshot.running is not None and snapshot.waiting is not None:
                return snapshot, dialect
    return None
