"""The paper's workloads, users and regions as scenarios, and their requests.

Two parameterisations of conversations. ``arena`` and ``wildchat`` are the simulator's own kinds: lengths of
Mooncake's conversations, 79 % of one turn. ``-paperlike`` has the lengths of the data sets that the paper
replays: messages of 110 tokens (median), answers of 400 (mean), which lie between the published means of
LMSYS-Chat-1M (70 and 216 tokens) and of WildChat (296 and 441). Turns are those of LMSYS-Chat-1M (2.0 in the
mean) and of WildChat's conversations of at least two turns (4.7), which are the ones the paper replays.
"""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from skylb.tools.load.conversation import SESSION_BASE, SYSTEM_BASE, TURNS_MAX
from skylb.tools.sim.requests import Requests, requests
from skylb.tools.sim.scenario import Clients, Network, Region, Replicas, Scenario
from skylb.tools.sim.workload import Arena, Tree, WildChat, Workload

REGIONS = ("us", "eu", "asia")
RTT_MS = [[0.5, 102.0, 124.0], [102.0, 0.5, 222.0], [124.0, 222.0, 0.5]]
"""Between us-east-2, eu-central-1 and ap-northeast-1."""

PROFILE = "l4-8b"
MAX_TOKENS = 512
L4_TOKENS = 16_000
"""Longer conversations are left out: with the answer they would not fit into a replica beside others."""

HOLD_TIMEOUT_S = 600.0
"""Longer than any wait here: a request that one system refuses and another holds cannot be compared."""

LAYOUTS = {"444": (4, 4, 4), "323": (3, 2, 3)}
"""Replicas in us, eu and asia."""

Counts = tuple[int, int, int]
Kind = Literal["chat", "tree"]

MESSAGE_TOKENS = 110
ANSWER_TOKENS = 490
"""Mean of four of five answers; the fifth is a few words, so that all have 400 in the mean."""


@dataclass(frozen=True)
class Case:
    """One workload with its users.

    Attributes:
        name: of the case.
        users: at once, in us, eu and asia; each sends, waits for the answer and sends again.
        workload: what they send.
        kind: whether the paper's figures for conversations or for trees stand beside it.
        us_tree: what us sends instead, where its programs are others.
        think_scale: 0: no pauses.
    """

    name: str
    users: Counts
    workload: Workload
    kind: Kind
    us_tree: Tree | None = None
    think_scale: float = 0.0


def _paperlike(kind: type[Arena], single: float, more_turns: float) -> Arena:
    return kind(
        single=single,
        more_turns=more_turns,
        first_tokens=MESSAGE_TOKENS,
        first_spread=1.0,
        next_tokens=MESSAGE_TOKENS,
        answer_tokens=ANSWER_TOKENS,
        tokens_max=L4_TOKENS,
    )


WILDCHAT_PAPERLIKE = _paperlike(WildChat, single=0.0, more_turns=3.7)

CASES = (
    Case("arena", (80, 80, 80), Arena(tokens_max=L4_TOKENS), "chat"),
    Case("arena-paperlike", (80, 80, 80), _paperlike(Arena, single=0.5, more_turns=2.0), "chat"),
    Case("wildchat", (40, 30, 30), WildChat(tokens_max=L4_TOKENS), "chat"),
    Case("wildchat-paperlike", (40, 30, 30), WILDCHAT_PAPERLIKE, "chat"),
    Case("tot", (40, 20, 20), Tree(), "tree"),
    Case("mixed-tree", (2, 20, 20), Tree(), "tree", us_tree=Tree(branches=4)),
)


def scenario(case: Case, layout: Counts, seed: int, duration_s: float, warmup_s: float) -> Scenario:
    """A case on so many replicas per region, as the default decides; a region without any is left out."""
    served = [index for index, count in enumerate(layout) if count]
    return Scenario(
        seed=seed,
        duration_s=duration_s,
        warmup_s=warmup_s,
        engine={"hold_timeout_s": HOLD_TIMEOUT_S},
        regions=[
            Region(name=REGIONS[index], replicas=[Replicas(count=layout[index], profile=PROFILE)])
            for index in served
        ],
        network=Network(rtt_ms=[[RTT_MS[row][column] for column in served] for row in served]),
        clients=Clients(
            mode="closed",
            users={REGIONS[index]: case.users[index] for index in served},
            think_scale=case.think_scale,
            max_tokens=MAX_TOKENS,
        ),
        workload=case.workload,
    )


def requests_of(case: Case, made_for: Scenario) -> Requests:
    """The requests of a case: the same for every system and layout with one seed."""
    if case.us_tree is None:
        return requests(made_for)
    users = made_for.clients.users
    us = REGIONS[0]
    others = {name: count for name, count in users.items() if name != us}
    return merged(
        requests(_only(made_for, others, made_for.workload)),
        requests(_only(made_for, {us: users[us]}, case.us_tree)),
    )


def _only(made_for: Scenario, users: dict[str, int], workload: Workload) -> Scenario:
    clients = msgspec.structs.replace(made_for.clients, users=users)
    return msgspec.structs.replace(made_for, clients=clients, workload=workload)


Columns = dict[str, list[Any]]


def columns_of(made: Requests) -> Columns:
    """Requests as columns (``rust/src/sim/workload.rs``)."""
    found: Columns = msgspec.json.decode(made.data)
    return found


def of_columns(columns: Columns) -> Requests:
    """Requests of columns, by arrival."""
    order = sorted(range(len(columns["id"])), key=lambda row: (columns["t"][row], columns["id"][row]))
    ordered = {name: [column[row] for row in order] for name, column in columns.items()}
    return Requests(msgspec.json.encode(ordered), len(order))


USER_STEP = 1 << 40
"""Above the users' numbers of one made workload."""

TEMPLATES = SYSTEM_BASE - (1 << 40)
"""Ids of blocks from here on are shared by sessions: templates of programs, and system prompts."""


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
