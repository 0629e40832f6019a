"""Why requests of the demo's users failed, in words for people."""

from collections import Counter
from collections.abc import Mapping

WHY = {
    "upstream_reset": "cut by a killed replica",
    "upstream_connect": "no replica could be reached",
    "upstream_timeout": "a replica stood still",
    "connect": "balancer dead, DNS not yet changed",
    "reset": "unanswered by a killed balancer",
    "truncated": "cut by a killed balancer",
    "shutting_down": "the balancer was stopping",
    "no_replica_ready": "no replica was ready",
    "hold_full": "the hold was full",
    "hold_timeout": "waited too long in the hold",
    "evacuating": "the region was evacuated",
    "silent": "no byte for too long",
}
"""By code of an answer's error, or by kind (`skylb.tools.load.client`)."""


def reasons(codes: Mapping[str, int]) -> list[tuple[str, int]]:
    """Why, and how many, the most frequent first."""
    counted: Counter[str] = Counter()
    for code, count in codes.items():
        counted[WHY.get(code, code.replace("_", " "))] += count
    return counted.most_common()


def sentence(codes: Mapping[str, int]) -> str:
    """All reasons in one line; empty without any."""
    return ", ".join(f"{count} {why}" for why, count in reasons(codes))
