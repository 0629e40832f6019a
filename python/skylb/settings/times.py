"""Settings of the time that each phase of a request may take."""

from typing import Annotated

from pydantic import Field

from skylb.settings.values import Count, Group, Seconds


class TimeoutSettings(Group):
    """How long the data plane waits in each phase of a request."""

    head_s: Annotated[
        Seconds, Field(gt=0, description="a client's request head, its TLS handshake included")
    ] = 10.0
    body_s: Annotated[Seconds, Field(gt=0, description="a client's request body")] = 60.0
    body_bytes_per_s_min: Annotated[
        Count,
        Field(ge=0, description="slowest average at which a request body may arrive, after its first 5 s"),
    ] = 1024
    connect_s: Annotated[
        Seconds,
        Field(
            gt=0, description="TCP and TLS handshake with a replica; above 1 s, the first SYN retransmission"
        ),
    ] = 1.5
    first_byte_s: Annotated[
        Seconds, Field(gt=0, description="from the push of a stream's request to its first event")
    ] = 600.0
    answer_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="from the push to the first body byte of an answer that is no stream; "
            "the request is not run a second time",
        ),
    ] = 3600.0
    stream_idle_s: Annotated[
        Seconds, Field(gt=0, description="silence of an answer after its first body byte, a stream or not")
    ] = 600.0
    stream_commit_s: Annotated[
        Seconds,
        Field(
            ge=0,
            description="wait for the first event after which a replica's head and comments go out",
        ),
    ] = 5.0
    stream_keep_alive_s: Annotated[
        Seconds,
        Field(
            ge=0,
            description="silence of a stream after which the client is sent a comment; 0: never",
        ),
    ] = 15.0
    write_stall_s: Annotated[
        Seconds, Field(gt=0, description="a client that takes nothing of what is sent")
    ] = 60.0
    client_idle_s: Annotated[
        Seconds, Field(gt=0, description="an idle keep-alive connection of a client")
    ] = 75.0
    upstream_idle_s: Annotated[
        Seconds, Field(gt=0, description="an idle connection to a replica; vLLM closes its own after 5 s")
    ] = 4.0
    probe_s: Annotated[Seconds, Field(gt=0, description="one probe of a replica, the connect included")] = 2.0
