"""The condition of each replica and peer, in a word and its reason."""

import os
import re
from collections.abc import Mapping

from skylb._core import PeerGauges, ReplicaGauges
from skylb.admin.pulse import Member
from skylb.admin.trouble import peer_key, replica_key

SILENT = frozenset({"down", "unknown"})
"""Words of control for a replica that does not answer: they count more than what requests have found."""

_ERRNO = re.compile(r"\[Errno (\d+)\] Connect call failed \(.*?\)")
"""How asyncio words a connection that is refused: the number says all."""

_HEALTH = {
    "ejected": "ejected: its last requests failed",
    "probing": "probing: one request tries whether it is well again",
    "wedged": "wedged: it answers no request, though it answers probes",
    "down": "down",
}
"""What the engine has found out by requests."""


def replica_members(
    gauges: list[ReplicaGauges], states: Mapping[str, str], drained_by: Mapping[str, str]
) -> dict[str, Member]:
    """All replicas.

    Args:
        gauges: the engine's figures; of two with one name the later one counts.
        states: by name, as control says.
        drained_by: those that get no new requests, by name: who wants it.
    """
    return {
        replica_key(replica.name): Member(
            condition=condition(
                replica.health, states.get(replica.name, "unknown"), drained_by.get(replica.name)
            ),
            cached=replica.cached_tokens_total,
            prompt=replica.prompt_tokens_total,
        )
        for replica in sorted(gauges, key=lambda replica: replica.replica)
    }


def condition(health: str, state: str, drained_by: str | None) -> str:
    """One replica's condition: what hinders requests most.

    Args:
        health: the engine's word.
        state: control's: a word, and its reason behind a colon.
        drained_by: who wants no new requests there.
    """
    state = _ERRNO.sub(lambda found: os.strerror(int(found[1])).lower(), state)
    if state.partition(":")[0].partition(";")[0] in SILENT:
        return state
    if health in _HEALTH:
        return _HEALTH[health]
    return f"draining: {drained_by}" if drained_by is not None else state


def peer_members(gauges: list[PeerGauges], faults: Mapping[str, str]) -> dict[str, Member]:
    """All peers; ``faults``: by name, why one cannot be reached."""
    return {
        peer_key(peer.name): Member(
            condition=_peer_condition(peer, faults.get(peer.name, "")), forwarded=peer.forwarded_total
        )
        for peer in gauges
    }


def _peer_condition(peer: PeerGauges, fault: str) -> str:
    if peer.isolated:
        return "isolated: by an operator"
    if peer.state == "alive":
        return "evacuated: it takes no forwards" if peer.draining else "alive"
    return f"{peer.state}: {fault}" if fault else peer.state
