"""What is wrong with a balancer now, worst first: the sentences at the top of its live page."""

from collections.abc import Iterator, Sequence

import msgspec

from skylb import _core
from skylb.admin.pulse import BAD, GOOD, RECENT_S, Pulses
from skylb.admin.state import ReplicaState, State

FAILING_SHARE = 0.05
"""Share of failed requests from which on they are bad and not only a warning."""

HELD_S = 5.0
"""Requests that wait without a break for so long are a warning: a burst is over sooner."""

SIDES = {code: side for code, _, side, _, _ in _core.errors()}
"""Whose side each error is on."""

NOT_OURS = frozenset({"client", "operator", "peer"})
"""Sides whose errors are no trouble of this balancer. A peer that reads such an error tries elsewhere."""

FOR_CLIENTS = frozenset({"peers_full", "upstream_refused"})
"""Errors on a peer's side that a client of this balancer reads: its request has failed."""

LEVELS = ("bad", "warn", "note")


class Trouble(msgspec.Struct, frozen=True):
    """Something that is wrong, or worth knowing.

    Attributes:
        level: ``bad``: requests fail or cannot be served. ``warn``: less works than should. ``note``:
            somebody wanted it so.
        text: a sentence.
    """

    level: str
    text: str


def troubles(state: State, pulses: Pulses, *, serves: bool) -> list[Trouble]:
    """All that is wrong, worst first.

    Args:
        state: of the balancer.
        pulses: its recent past.
        serves: whether a request would find a replica, here or at a peer.
    """
    found = [
        *_balancer(state, serves=serves),
        *_failures(pulses),
        *_replicas(state, pulses),
        *_peers(state, pulses),
        *_hold(state, pulses),
    ]
    return sorted(found, key=lambda trouble: LEVELS.index(trouble.level))


def headline(state: State, found: Sequence[Trouble]) -> str:
    """The first sentence of the page."""
    if found and found[0].level != "note":
        return found[0].text
    count = sum(replica.ready for replica in _listed(state))
    serve = "1 replica serves" if count == 1 else f"{count} replicas serve"
    waits = "nothing waits" if not state.held else f"{_requests(state.held)} in the hold"
    return f"All well: {serve}, {waits}."


def _listed(state: State) -> list[ReplicaState]:
    return [replica for replica in state.replicas if not replica.removed]


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"


def _balancer(state: State, *, serves: bool) -> Iterator[Trouble]:
    if state.process.stopping:
        yield Trouble("bad", "This balancer is stopping: it takes no new requests.")
    elif not serves and not _listed(state):
        yield Trouble("bad", "No request can be served: there are no replicas.")
    elif not serves:
        yield Trouble("bad", "No request can be served: no replica is ready.")
    if state.mesh is not None and state.mesh.evacuating:
        left_s = state.mesh.leaves_in_s
        running = "" if left_s is None else f" Those that run leave in {left_s:.0f} s."
        running = " Those that run leave." if left_s == 0 else running
        yield Trouble("warn", f"This region is evacuated: its requests go to the other regions.{running}")


def _failures(pulses: Pulses) -> Iterator[Trouble]:
    seconds, ended, errors = pulses.window()
    ours = {code: count for code, count in errors.items() if _ours(code)}
    failed = sum(ours.values())
    if not failed:
        return
    most = max(ours, key=lambda code: ours[code])
    share = failed / ended if ended else 1.0
    level = "bad" if share >= FAILING_SHARE else "warn"
    span = "minute" if seconds > RECENT_S - 2 else f"{seconds:.0f} s"
    why = most if len(ours) == 1 else f"most with {most}"
    yield Trouble(level, f"{failed} of {_requests(ended)} failed in the last {span}: {why}.")


def _ours(code: str) -> bool:
    return code in FOR_CLIENTS or SIDES.get(code) not in NOT_OURS


def _replicas(state: State, pulses: Pulses) -> Iterator[Trouble]:
    for replica in _listed(state):
        key = replica_key(replica.name)
        member = pulses.condition(key)
        if member.word in GOOD:
            continue
        level = "bad" if member.word in BAD else "note" if member.word == "draining" else "warn"
        reasons = [text for text in (member.reason, replica.countdown) if text]
        reason = f": {', '.join(reasons)}" if reasons else ""
        since = pulses.since_s(key)
        age = _age(state.process.uptime_s - since) if since is not None else ""
        lasts = f"has been {member.word} for {age}" if age else f"is {member.word}"
        text = f"{key[0].upper()}{key[1:]} {lasts}{reason}."
        yield Trouble(level, text)


def _peers(state: State, pulses: Pulses) -> Iterator[Trouble]:
    for peer in state.peers:
        member = pulses.condition(peer_key(peer.name))
        if member.word in GOOD or member.word == "unknown":
            continue
        reason = f": {member.reason}" if member.reason else ""
        level = "warn" if member.word in BAD else "note"
        yield Trouble(level, f"Peer {peer.name} is {member.word}{reason}.")


def _hold(state: State, pulses: Pulses) -> Iterator[Trouble]:
    if pulses.held_for(HELD_S):
        verb, them = ("waits", "it") if state.held == 1 else ("wait", "them")
        yield Trouble("warn", f"{_requests(state.held)} {verb} in the hold: no replica has room for {them}.")


def _age(seconds: float) -> str:
    """A time in the largest unit that fits."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{round(seconds / 3600)} h"


def replica_key(name: str) -> str:
    """What a replica is called in samples and sentences."""
    return f"replica {name.removeprefix('http://')}"


def peer_key(name: str) -> str:
    """The same of a peer."""
    return f"peer {name}"
