"""The simulated day of the demo: where it is noon, and how many users of a region are awake."""

import math

from skylb.tools.demo.settings import DemoSettings

PLACES: dict[str, tuple[float, float]] = {"us": (-77.5, 39.0), "eu": (8.7, 50.1), "asia": (139.7, 35.7)}
"""Degrees east and north: Virginia, Frankfurt, Tokyo, whose round trips the links have."""

NIGHT_SHARE = 0.05
"""Share of a region's users who are awake at midnight."""

FIRST_NOON = 0.4
"""Part of a day. Of all regions, Europe has its noon soon after the start, and America right behind it."""

NOON = 1.3
"""How far a day's curve passes its top, where it is cut: for almost a fifth of the day all are awake."""

PEAK = 3
"""Power of a day's curve. Around noon a region has more requests than places, while another one is idle."""


def sun_longitude(settings: DemoSettings, elapsed_s: float) -> float:
    """Where it is noon, degrees east: at the first region `FIRST_NOON` after the start."""
    return PLACES[settings.regions[0]][0] - 360.0 * (elapsed_s / settings.day_s - FIRST_NOON)


def awake(settings: DemoSettings, region: str, elapsed_s: float) -> int:
    """Users of a region who are awake: few at night, all of them around noon."""
    hour_angle = math.radians(PLACES[region][0] - sun_longitude(settings, elapsed_s))
    light = min(1.0, NOON * ((1 + math.cos(hour_angle)) / 2) ** PEAK)
    return max(1, round(settings.users * (NIGHT_SHARE + (1 - NIGHT_SHARE) * light)))
