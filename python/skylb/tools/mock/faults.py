"""Failures on demand: given as flags, changed at run time through ``POST /mock/faults``."""

from typing import Annotated

from pydantic import Field

from skylb.config import Count, Group

Status = Annotated[int, Field(ge=100, le=599)]
Tokens = Annotated[Count, Field(ge=0)]


class Faults(Group):
    """What one replica does wrong. The default is nothing."""

    error_rate: Annotated[
        float,
        Field(ge=0, le=1, description="Share of inference requests that get an error instead of an answer."),
    ] = 0.0
    status: Annotated[Status, Field(description="Status of the errors of --fault-error-rate.")] = 500
    cut_after_tokens: Annotated[
        Tokens | None,
        Field(
            description="Close the connection after this many tokens of each answer. 0 closes it before the "
            "body's first byte."
        ),
    ] = None
    stall_after_tokens: Annotated[
        Tokens | None,
        Field(
            description="Send this many tokens of each answer, then nothing more, and keep the connection."
        ),
    ] = None
    stall_in_body: Annotated[
        bool, Field(description="Send only the first byte of each answer that is no stream.")
    ] = False
    freeze: Annotated[
        bool,
        Field(
            description="The engine stands still: it takes requests and computes nothing. /metrics is "
            "answered, always with the same figures."
        ),
    ] = False
    error_event_rate: Annotated[
        float, Field(ge=0, le=1, description="Share of streams whose first and only event is an error.")
    ] = 0.0
    comment_ms: Annotated[
        float,
        Field(
            ge=0,
            le=3_600_000,
            description="Silence of a stream after which it gets a comment, in milliseconds, as with vLLM's "
            "--sse-keep-alive-interval. 0 sends none.",
        ),
    ] = 0.0
    refuse: Annotated[
        bool, Field(description="Reset each connection at its first request, except for /mock/...")
    ] = False
    slow_head_ms: Annotated[
        float, Field(ge=0, le=3_600_000, description="Delay of each inference response, in milliseconds.")
    ] = 0.0
    health_status: Annotated[Status, Field(description="Status of /health.")] = 200
    metrics_status: Annotated[
        Status, Field(description="Status of /metrics. With any status but 200, the answer is empty.")
    ] = 200
    metrics_names_status: Annotated[
        Status,
        Field(
            description="Status of /metrics/?name[]=..., which not all engines know. With any status but "
            "200, the answer is empty."
        ),
    ] = 200
    tokenize_status: Annotated[
        Status,
        Field(description="Status of /tokenize and /detokenize. Any but 200 is an error."),
    ] = 200
