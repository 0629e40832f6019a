"""Failures on demand: given as flags, changed at run time through ``POST /mock/faults``."""

from typing import Annotated

from pydantic import Field

from skylb.config import Count, Group

Status = Annotated[int, Field(ge=100, le=599)]
Tokens = Annotated[Count, Field(ge=0)]


class Faults(Group):
    """What one replica does wrong. The default is nothing."""

    error_rate: Annotated[
        float, Field(ge=0, le=1, description="share of inference requests answered with an error, unserved")
    ] = 0.0
    status: Annotated[Status, Field(description="status of those errors")] = 500
    cut_after_tokens: Annotated[
        Tokens | None,
        Field(description="close each connection after so many tokens; 0: before the first byte of the body"),
    ] = None
    stall_after_tokens: Annotated[
        Tokens | None, Field(description="send nothing more after so many tokens and keep the connection")
    ] = None
    stall_in_body: Annotated[
        bool, Field(description="send the first byte of each answer that is no stream, and nothing more")
    ] = False
    error_event_rate: Annotated[
        float, Field(ge=0, le=1, description="share of streams whose first event is an error, their last too")
    ] = 0.0
    comment_ms: Annotated[
        float,
        Field(
            ge=0,
            le=3_600_000,
            description="silence of a stream after which it has a comment, as vLLM's "
            "--sse-keep-alive-interval; 0: never",
        ),
    ] = 0.0
    refuse: Annotated[
        bool, Field(description="reset each connection at its first request, other than for /mock/...")
    ] = False
    slow_head_ms: Annotated[
        float, Field(ge=0, le=3_600_000, description="hold each inference response back so long")
    ] = 0.0
    health_status: Annotated[Status, Field(description="status of /health")] = 200
    metrics_status: Annotated[Status, Field(description="status of /metrics; without a page unless 200")] = (
        200
    )
    metrics_names_status: Annotated[
        Status, Field(description="status of /metrics/?name[]=..., which not all engines know; as above")
    ] = 200
