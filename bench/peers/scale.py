"""Intervals of programs, made shorter as time is.

``scale`` is the factor on all times, as ``--time-scale`` of our tools: 0.25 is four times faster.
"""

from dataclasses import dataclass
from typing import Any

from skylb.config import Settings
from skylb.options import Option, options

UNSCALED = ("dns.", "timeout.connect_s", "timeout.body_bytes_per_s_min", "engine.retry_after_s")
"""Settings of SkyLB that stay: of no use here, of the machine's network, or whole seconds by the protocol."""


@dataclass(frozen=True)
class Interval:
    """One setting of a program that is a time.

    Attributes:
        flag: its name, as the program takes it.
        seconds: its value at full length: as documented, else as shipped.
        unit_s: what the program counts it in; it takes whole numbers of that only.
    """

    flag: str
    seconds: float
    unit_s: float = 1.0

    def units(self, scale: float) -> int:
        """The scaled value in the program's unit: at least one."""
        return max(1, round(self.seconds * scale / self.unit_s))

    def exact(self, scale: float) -> bool:
        """Whether the scaled value can be had."""
        return abs(self.units(scale) * self.unit_s - self.seconds * scale) < 1e-9

    def told(self, scale: float) -> str:
        """The value given, and the one wanted where that could not be had."""
        value = f"{self.flag} {self.units(scale) * self.unit_s:g} s"
        return value if self.exact(scale) else f"{value} (not {self.seconds * scale:g} s)"


def flags(intervals: tuple[Interval, ...], scale: float) -> list[str]:
    """Command-line arguments; none where time is not compressed, so that what is shipped holds."""
    if scale == 1.0:
        return []
    return [part for one in intervals for part in (one.flag, str(one.units(scale)))]


def skylb_flags(scale: float) -> list[str]:
    """The same for every setting of SkyLB that is a time or a rate."""
    if scale == 1.0:
        return []
    found = []
    for option in options(Settings):
        factor = _factor(option, scale)
        if factor is not None:
            found += [option.flag, f"{option.default * factor:.6g}"]
    return found


def _factor(option: Option, scale: float) -> float | None:
    """What a setting's default is multiplied by; ``None`` where it stays."""
    value: Any = option.default
    if not isinstance(value, float) or value == 0.0 or option.name.startswith(UNSCALED):
        return None
    last = option.path[-1]
    if "_per_s" in last:
        return 1 / scale
    return scale if last.endswith("_s") else None
