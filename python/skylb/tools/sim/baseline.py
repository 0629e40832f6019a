"""Baselines: the point of a sweep that each other point is compared with.

A baseline is a value of one swept field or more. A point is compared with the point that has these values
and is like it in all others. So ``policy=ring`` in a sweep of policies and rates compares each policy
with ``ring`` at the same rate. Without a choice all are compared with the first point.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from skylb.errors import ConfigError
from skylb.tools.sim.read import Assignments, Point
from skylb.tools.sim.settings import parse_value

SHOWN_MAX = 20
"""Values that a fault lists at most."""


def choose(texts: Sequence[str], sweep: Mapping[str, Sequence[Any]]) -> Assignments:
    """The values that ``--baseline`` names.

    Args:
        texts: ``FIELD=VALUE``, the field's last word in its place, or a value alone.
        sweep: values by field.

    Raises:
        ConfigError: a text names no value of the sweep, or several.
    """
    faults = []
    chosen: Assignments = {}
    for text in texts:
        found = [(field, value) for field, values in sweep.items() for value in values]
        matching = [(field, value) for field, value in found if _named(text, field, value)]
        if len(matching) == 1:
            chosen |= matching
        elif matching:
            fields = ", ".join(field for field, _ in matching)
            faults.append(f"baseline: {text}: is a value of {fields}: expected FIELD=VALUE")
        elif not found:
            faults.append(f"baseline: {text}: without a sweep, there is nothing to compare with it")
        else:
            names = [f"{field}={value}" for field, value in found]
            more = ", ..." if len(names) > SHOWN_MAX else ""
            expected = ", ".join(names[:SHOWN_MAX])
            faults.append(
                f"baseline: {text}: no value of the sweep is named so: expected one of {expected}{more}"
            )
    if faults:
        raise ConfigError(faults)
    return chosen


def checked(chosen: Assignments, sweep: Mapping[str, Sequence[Any]]) -> Assignments:
    """The values themselves, if the sweep has them.

    Raises:
        ConfigError: it does not.
    """
    faults = [
        f"baseline: {field}={value}: expected a field and a value of the sweep"
        for field, value in chosen.items()
        if value not in sweep.get(field, ())
    ]
    if faults:
        raise ConfigError(faults)
    return chosen


def _named(text: str, field: str, value: Any) -> bool:
    name, equals, wanted = text.partition("=")
    if not equals:
        return text in {str(value), str(value).lower()} or parse_value(text) == value
    return name in {field, field.rpartition(".")[2]} and _named(wanted, "", value)


def places(points: Sequence[Point], chosen: Assignments) -> list[int | None]:
    """For each point the position of its baseline; ``None`` for a point that is one itself.

    Args:
        points: all combinations of a sweep's values.
        chosen: as `choose` answers; without any value, the first point is the baseline.
    """
    chosen = chosen or (points[0].values if points else {})
    by_values = {_key(point.values): place for place, point in enumerate(points)}
    found = [by_values[_key(point.values | chosen)] for point in points]
    return [place if place != own else None for own, place in enumerate(found)]


def _key(values: Assignments) -> str:
    return repr(list(values.items()))
