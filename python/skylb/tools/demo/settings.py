"""What ``skylb demo`` can be told."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from skylb.addresses import ListenAddress
from skylb.config import LISTEN, Count, Group, Listen, Policy, Seconds

RegionName = Literal["us", "eu", "asia"]


class DemoSettings(Group):
    """Regions at work on one machine; the defaults fit two cores."""

    duration_s: Annotated[Seconds | None, Field(gt=0, description="end by itself, with a summary")] = None
    policy: Annotated[Policy, Field(description="how a replica is chosen")] = "prefix"
    regions: Annotated[
        tuple[RegionName, ...], Field(min_length=1, max_length=3, description="regions, a balancer each")
    ] = ("us", "eu", "asia")
    replicas: Annotated[Count, Field(ge=1, le=8, description="mock replicas per region")] = 2
    users: Annotated[
        Count, Field(ge=1, le=1000, description="users per region who are awake at its noon")
    ] = 44
    sequences: Annotated[
        Count, Field(ge=1, le=1024, description="sequences that a replica runs at once; more users wait")
    ] = 9
    time_scale: Annotated[
        float,
        Field(gt=0, le=10, description="factor on the replicas' and users' times; 0.2 is five times faster"),
    ] = 0.3
    day_s: Annotated[
        Seconds, Field(gt=1, description="length of a day: at noon all users of a region are awake")
    ] = 60.0
    page: Annotated[Listen, LISTEN, Field(description="where the live page is; port 0 takes a free one")] = (
        ListenAddress("127.0.0.1", 0)
    )

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        if len(set(self.regions)) < len(self.regions):
            yield {"regions"}, "regions: expected distinct names"
        if not self.page.is_loopback or self.page.unix:
            yield {"page"}, f"page: {self.page}: expected a port on loopback: its buttons kill processes"
