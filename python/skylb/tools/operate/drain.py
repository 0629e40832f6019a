"""``skylb drain``, ``skylb undrain`` and ``skylb evacuate``: what an operator asks of a running balancer."""

import json
import time
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field

from skylb.clock import monotonic_ns
from skylb.errors import SkyLBError
from skylb.settings.values import Placeholder, Seconds
from skylb.tools.operate.ask import AdminSettings, ask

PAUSE_NS = 250_000_000
"""Between two looks at what is in flight."""


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
        Field(description="Wait until no request is in flight at the replica. Status 1: some still are."),
    ] = False
    wait_s: Annotated[
        Seconds, Field(gt=0, description="Longest time for --wait. The replica drains on after it.")
    ] = 300.0


class RegionSettings(OrderSettings):
    """The balancer to ask, and the region."""

    region: Annotated[
        str,
        Placeholder("REGION"),
        Field(min_length=1, max_length=64, description="Name of the region. It may stand without the flag."),
    ]
    end: Annotated[bool, Field(description="End the evacuation: the region takes requests again.")] = False


def drain(settings: DrainSettings) -> str:
    """Takes a replica out; answers what to print.

    Raises:
        SkyLBError: it is not known, or requests are still in flight when the time is over.
    """
    said = ask(settings, "POST", f"/replicas/{_quoted(settings.replica)}/drain")
    began_ns = monotonic_ns()
    left = in_flight(settings, said["replica"])
    while settings.wait and left:
        if monotonic_ns() - began_ns > settings.wait_s * 1e9:
            raise SkyLBError(
                f"{said['replica']}: {left} requests are still in flight after {settings.wait_s:g} s. "
                "The replica drains on; skylb undrain lets it serve again"
            )
        time.sleep(PAUSE_NS / 1e9)
        left = in_flight(settings, said["replica"])
    if settings.json_:
        return json.dumps({**said, "in_flight": left})
    rest = f"In flight there: {left}." if left else "Nothing is in flight there: it can be stopped."
    hint = f" skylb drain {said['replica']} --wait waits for their end." if left else ""
    return f"{said['replica']} drains: it gets no new requests. {rest}{hint}"


def in_flight(settings: AdminSettings, replica: str) -> int:
    """Requests that a replica has from this balancer; none if it has left."""
    engine = ask(settings, "GET", "/state")["engine"]
    return next((int(row["in_flight"]) for row in engine["replicas"] if row["name"] == replica), 0)


def undrain(settings: ReplicaSettings) -> str:
    """Lets a replica serve again; answers what to print."""
    said = ask(settings, "POST", f"/replicas/{_quoted(settings.replica)}/undrain")
    if settings.json_:
        return json.dumps(said)
    if said["draining"]:
        return f"{said['replica']} still drains: {said.get('note', 'its source wants it')}."
    return f"{said['replica']} gets requests again."


def evacuate(settings: RegionSettings) -> str:
    """Sends a region's requests elsewhere, or ends that; answers what to print."""
    verb = "undrain" if settings.end else "evacuate"
    said: dict[str, Any] = ask(settings, "POST", f"/regions/{_quoted(settings.region)}/{verb}")
    if settings.json_:
        return json.dumps(said)
    balancers = ", ".join(said["balancers"])
    if settings.end:
        return f"{said['region']} takes requests again (balancers: {balancers})."
    return "\n".join(
        [
            f"{said['region']} is evacuated: its requests go to other regions (balancers: {balancers}).",
            *([f"Note: {said['note']}."] if "note" in said else []),
            f"skylb evacuate {said['region']} --end lets it take requests again.",
        ]
    )


def _quoted(name: str) -> str:
    return quote(name, safe="/:[]")
