"""Settings of the time that each phase of a request may take."""

from typing import Annotated

from pydantic import Field

from skylb.settings.values import Count, Group, Seconds


class TimeoutSettings(Group):
    """How long the data plane waits in each phase of a request."""

    head_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Time for a client to send a request head, TLS handshake included. Then it gets 408.",
        ),
    ] = 10.0
    body_s: Annotated[
        Seconds, Field(gt=0, description="Time for a client to send a request body. Then it gets 408.")
    ] = 60.0
    body_bytes_per_s_min: Annotated[
        Count,
        Field(
            ge=0,
            description="Minimum average rate of a request body after its first 5 s, in bytes per second. A "
            "slower client gets 408.",
        ),
    ] = 1024
    connect_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Time for the TCP and TLS handshake with a replica. Keep it above 1 s: TCP sends "
            "a lost SYN again after that time.",
        ),
    ] = 1.5
    first_byte_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Time from the push of a streamed request to its first event. Then SkyLB tries "
            "another replica.",
        ),
    ] = 600.0
    answer_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Time from the push of a request without a stream to the first byte of its "
            "answer. Then the client gets 504, and the request does not run again.",
        ),
    ] = 3600.0
    stream_idle_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Longest silence within an answer. Then a stream ends with an error event, and "
            "any other answer is cut.",
        ),
    ] = 600.0
    stream_commit_s: Annotated[
        Seconds,
        Field(
            ge=0,
            description="Time after which the client of a stream without an event gets its head. It needs a "
            "comment of the replica, which the client gets too.",
        ),
    ] = 5.0
    stream_keep_alive_s: Annotated[
        Seconds,
        Field(
            ge=0,
            description="Silence of a stream after which SkyLB sends the client a comment. Keep it below "
            "the idle time-out of proxies in front. 0 sends none.",
        ),
    ] = 15.0
    write_stall_s: Annotated[
        Seconds,
        Field(gt=0, description="Time after which SkyLB cuts a client that takes nothing of its answer."),
    ] = 60.0
    client_idle_s: Annotated[
        Seconds, Field(gt=0, description="Time after which SkyLB closes an idle connection of a client.")
    ] = 75.0
    upstream_idle_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Time after which SkyLB closes an idle connection to a replica. Keep it below the "
            "engine's own time (vLLM: 5 s).",
        ),
    ] = 4.0
    probe_s: Annotated[
        Seconds, Field(gt=0, description="Time for one probe of a replica, the connection included.")
    ] = 2.0
