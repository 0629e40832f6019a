"""What a link is like when nothing is wrong with it, and what can be wrong."""

from typing import Annotated, Literal, get_args

import msgspec

Fault = Literal["none", "stall", "drop", "blackhole", "cut", "accept_stall"]
"""What is wrong with a link.

================  =======================================================================
``none``          nothing
``stall``         bytes wait and arrive once it is over, as those that TCP sends again do
``drop``          what comes ``from`` one end is lost, its acknowledgements too
``blackhole``     what comes from either end is lost, and nobody is told
``cut``           connections are reset, and new ones too
``accept_stall``  connections are reset; new ones are accepted and lead nowhere
================  =======================================================================

A connection that has lost bytes is reset when the fault is over: TCP would have given it up.
"""

FAULTS: tuple[str, ...] = get_args(Fault)

Seconds = Annotated[float, msgspec.Meta(ge=0, le=60)]


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A link's figures.

    Attributes:
        rtt_s: round trip; each way takes half of it.
        jitter_s: each piece takes up to so much longer, drawn evenly; order is kept.
        bytes_per_s: what each way carries, all connections together; 0 is without limit.
        slow_start: whether a connection may have only so many bytes under way as TCP would allow it.
        window_bytes_max: bytes of one connection and way that may be under way at once.
    """

    rtt_s: Seconds = 0.0
    jitter_s: Seconds = 0.0
    bytes_per_s: Annotated[int, msgspec.Meta(ge=0)] = 0
    slow_start: bool = True
    window_bytes_max: Annotated[int, msgspec.Meta(ge=14_600)] = 4 << 20


ProfileName = Literal["plain", "us-eu-asia"]

_SEA = 125_000_000
"""1 Gbit/s."""

PROFILES: dict[str, dict[frozenset[str], Shape]] = {
    "plain": {},
    # Typical between the large providers' regions: Virginia and Frankfurt 90 ms, Virginia and Tokyo
    # 150 ms, Frankfurt and Tokyo 230 ms.
    "us-eu-asia": {
        frozenset({"us", "eu"}): Shape(rtt_s=0.09, jitter_s=0.002, bytes_per_s=_SEA),
        frozenset({"us", "asia"}): Shape(rtt_s=0.15, jitter_s=0.003, bytes_per_s=_SEA),
        frozenset({"eu", "asia"}): Shape(rtt_s=0.23, jitter_s=0.004, bytes_per_s=_SEA),
    },
}
"""Shapes by profile and the two ends of a link."""

if set(PROFILES) != set(get_args(ProfileName)):
    raise AssertionError("a profile has no name, or a name no profile")
