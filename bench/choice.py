"""The choice among 1,000 replicas and 10 peers, for `bench.engine`.

A request goes to one of 1,000 replicas of this balancer; and, where they are all full, to one of 10
peers, each of which has granted room. Prompts are of 2 kB, conversations that the trees know.
"""

from skylb import _core
from skylb.config import EngineSettings

MODEL = "m"
REPLICAS = 1_000
PEERS = 10
NOW_NS = 2_000_000_000
SUMMARIES_NS = 1_000_000_000
"""Between two summaries to one peer."""
TARGET_US = 20.0


IDS = _core.RequestIds("bench")
SENDER = _core.Sender("127.0.0.1:50000", "http", False, False)


def submit(
    engine: _core.Engine, request_id: int, sent: _core.Head, body: bytes, now_ns: int
) -> tuple[_core.Request, tuple[object, ...]]:
    """Makes a request and submits it; the request, and the effects."""
    request = _core.Request(sent, SENDER, IDS, now_ns, len(body))
    return request, engine.submit(request_id, request, body)


def balancer(name: str, region: str, replicas: int, in_flight_max: int, policy: str) -> _core.Engine:
    """Ready replicas, each of which takes so many requests whatever its load; none waits for a cache."""
    settings = EngineSettings(
        policy=policy,  # a name from the command line, validated here
        push="blind",
        affinity_wait_s=0.0,
        in_flight_max=in_flight_max,
    )
    made = _core.Engine(settings.model_dump_json().encode(), b"bench-secret-bench-secret", 1)
    made.set_self(name, region, 1)
    made.set_replicas([(replica, f"http://127.0.0.1:{8100 + replica}") for replica in range(replicas)], 1)
    for replica in range(replicas):
        made.set_models(replica, [(MODEL, 131_072)], False, 1)
        made.observe_failed(replica, _core.PROBE_UNREADABLE, 1)
    return made


def told(engine: _core.Engine, peer: int, kind: int, now_ns: int) -> bytes:
    """What an engine tells a peer when they connect.

    Raises:
        RuntimeError: nothing of this kind.
    """
    engine.peer_connected(peer, [kind], now_ns)
    effects = engine.tick(now_ns)
    engine.peer_disconnected(peer)
    for effect in effects:
        if isinstance(effect, _core.Tell):
            return effect.payload
    raise RuntimeError("nothing to tell")


def meshed(sent: _core.Head, bodies: list[bytes], *, full: bool, policy: str) -> _core.Engine:
    """A balancer of 1,000 replicas with 10 peers that have room; ``full``: its own have none.

    Args:
        sent: the head of each request.
        bodies: of the requests that fill the replicas, one each.
        full: fill them.
        policy: of all balancers.

    Raises:
        RuntimeError: a request went elsewhere than it should.
    """
    own = balancer("own", "own", REPLICAS, 1 if full else 1_000_000, policy)
    others = [balancer(f"p{number}", f"r{number}", 1, 1_000_000, policy) for number in range(PEERS)]
    own.set_peers([(number, f"p{number}", f"r{number}", True) for number in range(PEERS)], 1)
    for number, other in enumerate(others):
        other.set_peers([(0, "own", "own", True)], 1)
        other.peer_state(0, _core.PEER_ALIVE, 1)
        own.peer_state(number, _core.PEER_ALIVE, 1)
        own.peer_rtt(number, (80 + 10 * number) * 1_000_000, 1)
    # What was heard is known in the second round only.
    for now_ns in (NOW_NS - SUMMARIES_NS, NOW_NS):
        for number, other in enumerate(others):
            other.merge_peer(0, told(own, number, _core.MESSAGE_SUMMARY, now_ns), now_ns)
            own.merge_peer(number, told(other, 0, _core.MESSAGE_SUMMARY, now_ns), now_ns)
    for request_id in range(REPLICAS if full else 0):
        submit(own, request_id, sent, bodies[request_id % len(bodies)], NOW_NS)
    expected = _core.Forward if full else _core.Push
    for body in bodies:
        request, effects = submit(own, REPLICAS, sent, body, NOW_NS)
        if [type(effect) for effect in effects] != [expected]:
            raise RuntimeError(f"{effects}: not one {expected.__name__}")
        own.complete(request, _core.OUTCOME_OK, None, NOW_NS)
    return own
