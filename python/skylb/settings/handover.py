"""Settings of restarts: who takes over from a running balancer, and what is kept of what was learned."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from skylb.settings.sections import COMMON, STOP
from skylb.settings.values import Bytes, Expected, Group, Placeholder, Seconds

SOCKET_NAME = "handover.sock"
"""The file of the hand-over socket in `state_dir`, where no other is given."""

PATH_BYTES_MAX = 107
"""Of a Unix socket's path: unix(7) has room for 108 bytes, the last of which is 0."""


class HandoverSettings(Group):
    """A part of the settings of ``skylb serve``."""

    takeover: Annotated[
        bool,
        COMMON,
        STOP,
        Field(
            description="Take the listening sockets and the learned state over from the balancer that runs, "
            "then let it drain. No connection is refused meanwhile. Where no balancer runs, SkyLB "
            "starts as usual. Needs --state-dir or --handover-socket, as the running balancer had it."
        ),
    ] = False
    handover_socket: Annotated[
        Path | None,
        Expected("the path of a Unix socket"),
        Placeholder("PATH"),
        STOP,
        Field(
            description="Unix socket at which this balancer hands over to one that is started with "
            f"--takeover. Without it: {SOCKET_NAME} in --state-dir, or none."
        ),
    ] = None
    takeover_timeout_s: Annotated[
        Seconds,
        STOP,
        Field(
            gt=0,
            description="Longest time from the begin of a hand-over until the new process is ready. After it "
            "the running balancer goes on alone.",
        ),
    ] = 60.0
    state_dir: Annotated[
        Path | None,
        Expected("the path of a directory"),
        Placeholder("DIR"),
        COMMON,
        STOP,
        Field(
            description="Directory in which SkyLB keeps what it has learned: cached prefixes, speeds, "
            "sessions, tenants' use. It is read at the next start. One balancer per directory."
        ),
    ] = None
    state_interval_s: Annotated[
        Seconds,
        STOP,
        Field(
            ge=1,
            description="Time between two writes of the state. A balancer that is killed loses what it "
            "learned since the last one. It is also written at an orderly stop.",
        ),
    ] = 60.0
    state_age_max_s: Annotated[
        Seconds,
        STOP,
        Field(
            ge=0,
            description="Oldest state that a start reads. With an older file SkyLB starts without: engines "
            "will have evicted what it says.",
        ),
    ] = 1800.0
    state_bytes_max: Annotated[
        Bytes,
        STOP,
        Field(
            ge=1 << 16,
            description="Largest state that is written, read or handed over. If there is more, the prefixes "
            "that were used longest ago are left out.",
        ),
    ] = 64 << 20
    reuse_port: Annotated[
        bool,
        STOP,
        Field(
            description="Bind TCP addresses with SO_REUSEPORT, so that another process can listen at them "
            "too. Connections that wait at the one that ends are reset: a take-over does not need it."
        ),
    ] = False

    @property
    def handover_path(self) -> Path | None:
        """Where this balancer hands over, if it does at all."""
        if self.handover_socket is not None or self.state_dir is None:
            return self.handover_socket
        return self.state_dir / SOCKET_NAME

    def handover_conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together."""
        path = self.handover_path
        if self.takeover and path is None:
            yield (
                {"takeover", "handover_socket", "state_dir"},
                "takeover is given without handover_socket or state_dir: expected one of them",
            )
        if path is not None and len(bytes(path)) > PATH_BYTES_MAX:
            yield (
                {"handover_socket", "state_dir"},
                f"handover_socket: {path}: expected a path of at most {PATH_BYTES_MAX} bytes",
            )
