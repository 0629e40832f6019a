"""What a balancer says of itself (``/state``), as far as the live pages show it."""

import msgspec


class ReplicaState(msgspec.Struct, frozen=True):
    """One replica; see `skylb._core.ReplicaGauges`."""

    name: str
    health: str
    in_flight: int
    pending: int
    tree_blocks: int
    pushed_total: int
    cached_tokens_total: int
    prompt_tokens_total: int
    draining: bool = False
    replica: int = 0
    ready: bool = True
    blind: bool = False
    running: int | None = None
    waiting: int | None = None
    allowance: int = 0
    kv_used: float | None = None
    models: list[str] = []
    removed: bool = False
    leaves_in_s: float | None = None
    empties_in_s: float | None = None

    @property
    def countdown(self) -> str:
        """Text that says how long it is until it is left; empty for one that stays."""
        if self.leaves_in_s is not None:
            return f"ends in {self.leaves_in_s:.0f} s" if self.leaves_in_s > 0 else "its time is over"
        if self.empties_in_s is None:
            return ""
        return f"requests leave in {self.empties_in_s:.0f} s" if self.empties_in_s > 0 else "requests leave"


class PeerState(msgspec.Struct, frozen=True):
    """One peer; see `skylb._core.PeerGauges`."""

    name: str
    region: str = ""
    state: str = ""
    draining: bool = False
    isolated: bool = False
    rtt_ns: int | None = None
    room: int = 0
    in_flight: int = 0
    hold_requests: int = 0
    forwarded_total: int = 0


class _Hold(msgspec.Struct, frozen=True):
    requests: int


class _Engine(msgspec.Struct, frozen=True):
    replicas: list[ReplicaState]
    hold: _Hold
    peers: list[PeerState] = []


class _Process(msgspec.Struct, frozen=True):
    uptime_s: float
    policy: str
    version: str = ""
    stopping: bool = False


class _Mesh(msgspec.Struct, frozen=True):
    name: str = "local"
    region: str = ""
    evacuating: bool = False
    leaves_in_s: float | None = None


class State(msgspec.Struct, frozen=True):
    """The part of ``/state`` that is shown."""

    process: _Process
    engine: _Engine
    mesh: _Mesh | None = None

    @property
    def held(self) -> int:
        """Requests in the hold."""
        return self.engine.hold.requests

    @property
    def replicas(self) -> list[ReplicaState]:
        """All replicas."""
        return self.engine.replicas

    @property
    def peers(self) -> list[PeerState]:
        """All peers."""
        return self.engine.peers
