"""``skylb drain``, ``skylb undrain`` and ``skylb evacuate``: what an operator asks of a running balancer."""

import json
import time
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field

from skylb.clock import monotonic_ns
from skylb.errors import SkyLBError
from skylb.mesh.orders import WITHIN_S_MAX
from skylb.settings.values import Placeholder, Seconds
from skylb.tools.operate.ask import AdminSettings, ask

PAUSE_NS = 250_000_000
"""Between two looks at what is in flight."""

SHARED = "Other balancers of the region send requests there too: drain it at each of them before you stop it."


@dataclass(frozen=True, slots=True)
class InFlight:
    """Requests at a replica that have not ended."""

    ours: int
    """Of this balancer."""
    theirs: int
    """Of other balancers of the region, as they last reported."""
    shared: bool
    """Other balancers send requests there."""
    lack: str = ""
    """Says for which models no replica takes requests now; empty: for none of the replica's."""

    @property
    def all(self) -> int:
        """All that are known."""
        return self.ours + self.theirs

    @property
    def others(self) -> str:
        """Text that says how many of them are not of this balancer."""
        return f", {self.theirs} of them from other balancers" if self.theirs else ""


class OrderSettings(AdminSettings):
    """The balancer to ask, and how to print its answer."""

    json_: Annotated[bool, Field(description="Print the balancer's answer as one JSON object.")] = False


class ReplicaSettings(OrderSettings):
    """The balancer to ask, and the replica."""

    replica: Annotated[
        str,
        Placeholder("REPLICA"),
        Field(
            min_length=1,
            max_length=1024,
            description="URL, HOST:PORT or number of the replica. It may stand without the flag.",
        ),
    ]


class DrainSettings(ReplicaSettings):
    """A replica to take out, and whether to wait until it is empty."""

    wait: Annotated[
        bool,
        Field(
            description="Wait until no request is in flight at the replica, from this balancer or another of "
            "the region. Status 1: some still are."
        ),
    ] = False
    wait_s: Annotated[
        Seconds, Field(gt=0, description="Longest time for --wait. The replica drains on after it.")
    ] = 300.0
    within: Annotated[
        Seconds | None,
        Field(
            ge=0,
            le=WITHIN_S_MAX,
            description="Requests that are still at the replica after so many seconds go elsewhere, as "
            "others have room. A stream does if it can continue. Without this they end there.",
        ),
    ] = None


class LeaveSettings(ReplicaSettings):
    """A replica that ends, and when."""

    in_: Annotated[
        Seconds,
        Field(
            ge=0,
            le=WITHIN_S_MAX,
            description="Time until the replica ends, in seconds. What is there leaves a quarter of this "
            "before, and 10 s at most.",
        ),
    ] = 120.0


class RegionSettings(OrderSettings):
    """The balancer to ask, and the region."""

    region: Annotated[
        str,
        Placeholder("REGION"),
        Field(min_length=1, max_length=64, description="Name of the region. It may stand without the flag."),
    ]
    within: Annotated[
        Seconds | None,
        Field(
            ge=0,
            le=WITHIN_S_MAX,
            description="Requests that are still in the region after so many seconds go elsewhere, as others "
            "have room. A stream does if it can continue. Without this they end there.",
        ),
    ] = None
    end: Annotated[bool, Field(description="End the evacuation: the region takes requests again.")] = False


def drain(settings: DrainSettings) -> str:
    """Takes a replica out; answers what to print.

    Raises:
        SkyLBError: it is not known, or requests are still in flight when the time is over.
    """
    said = ask(settings, "POST", f"/replicas/{_quoted(settings.replica)}/drain{_query(settings.within)}")
    replica = said["replica"]
    began_ns = monotonic_ns()
    left = in_flight(settings, replica)
    while settings.wait and left.all:
        if monotonic_ns() - began_ns > settings.wait_s * 1e9:
            raise SkyLBError(
                f"{replica}: {left.all} requests are still in flight after {settings.wait_s:g} s"
                f"{left.others}. The replica drains on; skylb undrain lets it serve again"
            )
        time.sleep(PAUSE_NS / 1e9)
        left = in_flight(settings, replica)
    if settings.json_:
        counts = {"in_flight": left.ours, "theirs_in_flight": left.theirs, "shared": left.shared}
        return json.dumps(said | counts)
    text = f"{replica} drains: it gets no new requests from this balancer. {_rest(replica, left)}"
    if settings.within is not None and left.all:
        text += f" What has not ended in {settings.within:g} s goes elsewhere, as others have room."
    return f"{text} {left.lack}" if left.lack else text


def _rest(replica: str, left: InFlight) -> str:
    """What is still to happen before the replica can be stopped."""
    if left.all:
        hint = f"skylb drain {replica} --wait waits for their end."
        text = f"In flight there: {left.all}{left.others}. {hint}"
    elif left.shared:
        text = "Nothing is in flight there now."
    else:
        text = "Nothing is in flight there: it can be stopped."
    return f"{text} {SHARED}" if left.shared else text


def in_flight(settings: AdminSettings, replica: str) -> InFlight:
    """Requests that a replica has; none if it has left.

    One that has left and come back has a row for each time, until the requests of its first time have ended.
    """
    state = ask(settings, "GET", "/state")
    rows = [row for row in state["engine"]["replicas"] if row["name"] == replica]
    return InFlight(
        ours=sum(int(row["in_flight"]) for row in rows),
        theirs=sum(int(row["theirs_in_flight"]) for row in rows),
        shared=any(row["shared"] for row in rows),
        lack=_lack(state, {model for row in rows for model in row["models"]}),
    )


def _lack(state: dict[str, Any], models: set[str]) -> str:
    """Says for which of these models no replica takes requests; a replica without a list serves any."""
    taking = [row for row in state["engine"]["replicas"] if row["ready"] and not row["draining"]]
    if not taking:
        text = "No replica takes requests now."
    else:
        served = {model for row in taking for model in row["models"]}
        lacking = sorted(models - served) if all(row["models"] for row in taking) else []
        if not lacking:
            return ""
        text = f"No replica takes requests for {', '.join(lacking)} now."
    peers = (state["mesh"] or {"peers": []})["peers"]
    alive = any(row["state"] == "alive" for row in peers)
    return f"{text} They go to peers that serve them." if alive else text


def undrain(settings: ReplicaSettings) -> str:
    """Lets a replica serve again; answers what to print."""
    said = ask(settings, "POST", f"/replicas/{_quoted(settings.replica)}/undrain")
    if settings.json_:
        return json.dumps(said)
    if said["draining"]:
        return f"{said['replica']} still drains: {said.get('note', 'its source wants it')}."
    return f"{said['replica']} gets requests again."


def leave(settings: LeaveSettings) -> str:
    """Announces that a replica ends; answers what to print."""
    said = ask(settings, "POST", f"/replicas/{_quoted(settings.replica)}/leave?in={settings.in_:g}")
    replica = said["replica"]
    left = in_flight(settings, replica)
    if settings.json_:
        counts = {"in_flight": left.ours, "theirs_in_flight": left.theirs, "shared": left.shared}
        return json.dumps(said | counts)
    lines = [
        f"{replica} ends in {said['leaves_in_s']:g} s: it gets no new requests from this balancer.",
        f"In flight there: {left.all}{left.others}. What has not ended shortly before leaves, if it can.",
        *(
            ["Other balancers of the region send requests there too: tell each of them."]
            if left.shared
            else []
        ),
        f"skylb undrain {replica} takes it back.",
    ]
    return "\n".join(lines)


def evacuate(settings: RegionSettings) -> str:
    """Sends a region's requests elsewhere, or ends that; answers what to print."""
    verb = "undrain" if settings.end else f"evacuate{_query(settings.within)}"
    said: dict[str, Any] = ask(settings, "POST", f"/regions/{_quoted(settings.region)}/{verb}")
    if settings.json_:
        return json.dumps(said)
    balancers = ", ".join(said["balancers"])
    if settings.end:
        return f"{said['region']} takes requests again (balancers: {balancers})."
    return "\n".join(
        [
            f"{said['region']} is evacuated: its requests go to other regions (balancers: {balancers}).",
            *_departure(said),
            *([f"Note: {said['note']}."] if "note" in said else []),
            f"skylb evacuate {said['region']} --end lets it take requests again.",
        ]
    )


def _departure(said: dict[str, Any]) -> list[str]:
    """What becomes of requests that run, where they are to leave."""
    if "within_s" not in said:
        return []
    lines = [f"What has not ended in {said['within_s']:g} s goes on elsewhere, as others have room."]
    if "in_flight" in said:
        lines.append(
            f"In flight here: {said['in_flight']}. Of these, {said['ending_here']} cannot go on elsewhere, "
            f"and {said['of_peers']} are other balancers'."
        )
    return lines


def _query(within: float | None) -> str:
    return "" if within is None else f"?within={within:g}"


def _quoted(name: str) -> str:
    return quote(name, safe="/:[]")
