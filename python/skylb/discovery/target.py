"""A replica as sources of replicas know it."""

from dataclasses import dataclass

from skylb.types import Address

REPLICAS_MAX = 4096
"""Replicas of one balancer; more are left out and told once per change."""


@dataclass(frozen=True, slots=True)
class Target:
    """A replica as a source of replicas knows it: resolved, without id.

    ``name`` is what operators call it, ``authority`` the value of ``Host``.
    """

    name: str
    address: Address
    authority: str
    region: str | None = None
    """Of an adopted replica, empty where it is not known; ``None``: this balancer's."""
