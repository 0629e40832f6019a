"""What ``skylb demo`` can be told."""

from typing import Annotated

from pydantic import Field

from skylb.config import Count, Group, Policy, Seconds


class DemoSettings(Group):
    """A balancer at work on one machine; the defaults fit two cores."""

    duration_s: Annotated[Seconds | None, Field(gt=0, description="end by itself, with a summary")] = None
    policy: Annotated[Policy, Field(description="how a replica is chosen")] = "prefix"
    replicas: Annotated[Count, Field(ge=1, le=16, description="mock replicas")] = 4
    users: Annotated[Count, Field(ge=1, le=1000, description="users who talk at once")] = 58
    sequences: Annotated[
        Count, Field(ge=1, le=1024, description="sequences that a replica runs at once; more users wait")
    ] = 9
    time_scale: Annotated[
        float,
        Field(gt=0, le=10, description="factor on the replicas' and users' times; 0.2 is five times faster"),
    ] = 0.2
