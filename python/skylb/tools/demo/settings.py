"""The settings of ``skylb demo``."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from skylb.addresses import ListenAddress
from skylb.config import LISTEN, Count, Group, Listen, Policy, Seconds

RegionName = Literal["us", "eu", "asia"]


class DemoSettings(Group):
    """Regions at work on one machine; the defaults fit two cores."""

    duration_s: Annotated[
        Seconds | None,
        Field(
            gt=0,
            description="Time after which the demo ends with a summary. Without it, Ctrl-C ends the demo.",
        ),
    ] = None
    policy: Annotated[
        Policy,
        Field(
            description="Rule that chooses a replica for each request at the start. The page has a switch "
            "between predictive and round_robin."
        ),
    ] = "predictive"
    regions: Annotated[
        tuple[RegionName, ...],
        Field(min_length=1, max_length=3, description="Regions, with one balancer each."),
    ] = ("us", "eu", "asia")
    replicas: Annotated[Count, Field(ge=1, le=8, description="Mock replicas per region.")] = 4
    users: Annotated[
        Count,
        Field(ge=1, le=1000, description="Users per region at its noon. At other hours fewer send requests."),
    ] = 68
    sequences: Annotated[
        Count,
        Field(ge=1, le=1024, description="Sequences that a replica runs at once. Further requests wait."),
    ] = 6
    time_scale: Annotated[
        float,
        Field(
            gt=0, le=10, description="Factor on the times of replicas and users. 0.2 is five times faster."
        ),
    ] = 0.3
    day_s: Annotated[
        Seconds,
        Field(gt=1, description="Length of a simulated day. At noon all users of a region send requests."),
    ] = 90.0
    page: Annotated[
        Listen, LISTEN, Field(description="Address of the live page. Port 0 takes a free one.")
    ] = ListenAddress("127.0.0.1", 0)

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        if len(set(self.regions)) < len(self.regions):
            yield {"regions"}, "regions: expected distinct names"
        if not self.page.is_loopback or self.page.unix:
            yield {"page"}, f"page: {self.page}: expected a port on loopback: its buttons kill processes"
