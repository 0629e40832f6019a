"""Requests as columns: workloads put together from others (``rust/src/sim/workload.rs`` has the form)."""

from collections.abc import Mapping
from typing import Any

import msgspec

from skylb.tools.load.conversation import SESSION_BASE, SYSTEM_BASE, TURNS_MAX
from skylb.tools.sim.requests import Requests

Columns = dict[str, list[Any]]

USER_STEP = 1 << 40
"""Above the users' numbers of one made workload."""

TEMPLATES = SYSTEM_BASE - (1 << 40)
"""Ids of blocks from here on are shared by sessions: templates of programs, and system prompts."""


def columns_of(made: Requests) -> Columns:
    """Requests as columns."""
    found: Columns = msgspec.json.decode(made.data)
    return found


def of_columns(columns: Columns) -> Requests:
    """Requests of columns, by arrival; those of one session keep their order."""
    order = sorted(range(len(columns["id"])), key=lambda row: (columns["t"][row], columns["id"][row]))
    ordered = {name: [column[row] for row in order] for name, column in columns.items()}
    return Requests(msgspec.json.encode(ordered), len(order))


def merged(first: Requests, second: Requests) -> Requests:
    """Two workloads in one; sessions, users and their own blocks are told apart."""
    found, more = columns_of(first), columns_of(second)
    sessions = 1 + max(found["session"])
    step, own = sessions * TURNS_MAX, sessions * SESSION_BASE
    more["id"] = [id_ + step for id_ in more["id"]]
    more["after"] = [None if after is None else after + step for after in more["after"]]
    more["session"] = [session + sessions for session in more["session"]]
    more["user"] = [user + USER_STEP for user in more["user"]]
    more["runs"] = [
        [(start + own if start < TEMPLATES else start, length) for start, length in runs]
        for runs in more["runs"]
    ]
    return of_columns({name: column + more[name] for name, column in found.items()})


def renamed(made: Requests, regions: Mapping[str, str]) -> Requests:
    """The same requests with other names of regions."""
    columns = columns_of(made)
    return of_columns(columns | {"region": [regions[name] for name in columns["region"]]})
