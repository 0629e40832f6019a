"""What all requests of the data plane share; the composition root makes it once."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from skylb._core import Head, HeadParser, Recorder, RequestError, RequestIds, Sender, Tenant
from skylb.addresses import IpAddress, IpNetwork
from skylb.config import TimeoutSettings
from skylb.data.cors import NO_CORS, Cors
from skylb.data.crossing import Crossing
from skylb.data.failures import KeyRefusals
from skylb.data.reading import Reading
from skylb.data.tenants import Tenants
from skylb.data.tokenizers import Tokenizers
from skylb.router import RequestRouter
from skylb.upstream import Pool

PIPELINE_BYTES_MAX = 256 << 10
"""Once so much waits behind a request under way, nothing more is read."""

WRITE_HIGH_WATER_BYTES = 32 << 10
"""Bytes that wait for a slow client before the replica's socket is no longer read."""

SWEEP_S = 0.25
"""One sweep over all deadlines instead of a timer per request."""

DRAIN_IDLE_S = 1.0
"""At the end of the process an idle connection stays for so long: a request that is on its way is still
answered, with ``Connection: close``."""

YIELD_IDLE_S = 5.0
"""The same where another process has taken over: clients that keep connections may have this time between two
requests and notice nothing."""

HEAP_KEEP_BYTES = 16 << 20
"""Block size up to which freed memory stays in the process; see `keep_heap`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the data plane: the time each phase may take (seconds), and sizes."""

    timeouts: TimeoutSettings
    body_bytes_max: int
    connections_max: int
    retry_after_s: int


class Budget:
    """Bytes kept in memory for clients, all connections together.

    A body is charged from its first byte until the first body byte of its response: until then
    it may have to be sent again. Answers that a client does not take, and requests that it sends too
    early, are charged as long as they wait.
    """

    __slots__ = ("bytes", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0

    def has(self, count: int) -> bool:
        """Whether there is room for ``count`` more bytes."""
        return self.bytes + count <= self.bytes_max

    def take(self, count: int) -> bool:
        """Charges ``count`` bytes; ``False`` when the budget would be passed."""
        total = self.bytes + count
        if total > self.bytes_max:
            return False
        self.bytes = total
        return True

    def owe(self, count: int) -> None:
        """Charges what is in memory already, beyond the maximum too; below 0 it is returned."""
        self.bytes += count

    def give(self, count: int) -> None:
        """Returns what was charged."""
        self.bytes -= count


def request_ids(sample_ratio: float | None = None) -> RequestIds:
    """Ids with a random prefix: 18 characters or more of ``[0-9a-f-]``.

    Args:
        sample_ratio: share of the traces begun here that are exported; ``None``: requests have no traces.
    """
    entropy = random.SystemRandom()
    return RequestIds(f"{entropy.getrandbits(64):016x}", sample_ratio, entropy.getrandbits(64))


@dataclass(slots=True)
class Context:
    """The shared parts of the data plane."""

    router: RequestRouter
    pool: Pool
    recorder: Recorder
    parser: HeadParser
    budget: Budget
    limits: Limits
    reading: Reading
    trusted_proxies: Sequence[IpNetwork] = ()
    cors: Cors = NO_CORS
    """Which scripts in browsers may call."""
    crossing: Crossing | None = None
    """How requests cross to peers; ``None`` for a balancer without any."""
    tenants: Tenants = field(default_factory=Tenants)
    inject_usage: bool = False
    """Streams are asked for usage on the client's behalf; the client does not see it."""
    isolates: bool = False
    """Bodies get the salt of their owner's prefix cache on the way to a replica."""
    leaves: Callable[[], bool] = lambda: False
    """Whether this balancer is being stopped, or its region evacuated: no sender should choose it."""
    draining: bool = False
    heard: set[int] = field(default_factory=set)
    """Replicas whose answers have gone on since the last sweep; at most as many as there are."""
    key_refusals: KeyRefusals = field(default_factory=KeyRefusals)
    tokenizers: Tokenizers = field(default_factory=Tokenizers)
    ids: RequestIds = field(default_factory=request_ids)
    refused: int = 0
    """Requests that were refused for their head, or while their body came."""
    local_errors: Counter[str] = field(default_factory=Counter)
    """By code: errors of requests that need no replica, such as a probe of a balancer that is not ready."""
    traces: bool = field(init=False)
    """Requests have traces."""
    idle_ns: int = field(init=False)
    """How long a client's connection may stay idle."""

    def __post_init__(self) -> None:
        self.traces = self.ids.traces
        self.idle_ns = int(self.limits.timeouts.client_idle_s * 1e9)

    def drain(self, idle_s: float = DRAIN_IDLE_S) -> None:
        """From now on connections close behind their answers, and idle ones go after ``idle_s``."""
        self.draining = True
        self.idle_ns = min(self.idle_ns, int(idle_s * 1e9))

    def refuse(
        self,
        error: RequestError,
        sender: Sender,
        request_id: str,
        head: Head | None,
        now_ns: int,
        tenant: Tenant | None,
    ) -> None:
        """A request was refused for its head, or while its body came."""
        self.refused += 1
        self.recorder.refused(error.status, error.code, sender, request_id, head, now_ns, tenant)

    def tell_heard(self, now_ns: int) -> None:
        """Tells the engine whose answers have gone on since the last sweep."""
        if self.heard:
            self.router.heard(list(self.heard), now_ns)
            self.heard.clear()

    def sweep_pools(self) -> None:
        """Closes connections to replicas and peers that were idle too long."""
        self.pool.sweep()
        if self.crossing is not None:
            self.crossing.pool.sweep()

    def trusts(self, client: IpAddress | None) -> bool:
        """Whether what a client at this address says of others is believed; never where it has none."""
        return client is not None and any(client in network for network in self.trusted_proxies)


def keep_heap() -> None:
    """Lets the C library keep what is freed instead of giving it back at once.

    glibc raises its thresholds to the largest mapped block that was freed (mallopt(3),
    ``M_MMAP_THRESHOLD``): one such block, never touched, is enough. With the defaults the heap's end
    is given back and faulted in again for every body or metrics page of more than some 30 kB: probing
    100 replicas at 100 ms cost twice the CPU time (50 kB pages, side by side).
    """
    bytes(HEAP_KEEP_BYTES)
