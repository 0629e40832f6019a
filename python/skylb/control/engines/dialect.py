"""What tells one engine's metrics from another's."""

from dataclasses import dataclass


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
