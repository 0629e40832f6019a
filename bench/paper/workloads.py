"""The paper's workloads, users and regions as scenarios, and their requests.

Two parameterisations of conversations. ``arena`` and ``wildchat`` are the simulator's own kinds: lengths of
Mooncake's conversations, 79 % of one turn. ``-paperlike`` has the lengths of the data sets that the paper
replays: messages of 110 tokens (median), answers of 400 (mean), which lie between the published means of
LMSYS-Chat-1M (70 and 216 tokens) and of WildChat (296 and 441). Turns are those of LMSYS-Chat-1M (2.0 in the
mean) and of WildChat's conversations of at least two turns (4.7), which are the ones the paper replays.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from bench.paper.columns import merged, renamed
from bench.paper.curve import warped
from skylb.config import EngineSettings
from skylb.tools.sim.requests import Requests, requests
from skylb.tools.sim.scenario import Clients, Network, Region, Replicas, Scenario
from skylb.tools.sim.workload import Arena, File, Tree, WildChat, Workload

REGIONS = ("us", "eu", "asia")
RTT_MS = [[0.5, 102.0, 124.0], [102.0, 0.5, 222.0], [124.0, 222.0, 0.5]]
"""Between us-east-2, eu-central-1 and ap-northeast-1."""

PROFILE = "l4-8b"
MAX_TOKENS = 512
L4_TOKENS = 16_000
"""Longer conversations are left out: with the answer they would not fit into a replica beside others."""

HOLD_TIMEOUT_S = 600.0
"""Longer than any wait here: a request that one system refuses and another holds cannot be compared."""

HOLD_AGE_S = EngineSettings().hold_timeout_s * 0.8
"""A request is due as early as with the shipped timeout."""

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
        users: at once, in us, eu and asia; each sends, waits for the answer and sends again. Of a day:
            shares of its sessions.
        workload: what they send.
        kind: whether the paper's figures for conversations or for trees stand beside it.
        us_tree: what us sends instead, where its programs are others.
        think_scale: factor on pauses; 0: none.
        day: sessions begin at the workload's rate by the curve of a day, whether others have ended or not.
        layouts: of `LAYOUTS`, where it runs in the main table.
    """

    name: str
    users: Counts
    workload: Workload
    kind: Kind
    us_tree: Tree | None = None
    think_scale: float = 0.0
    day: bool = False
    layouts: tuple[str, ...] = ("444", "323")


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
PROGRAMS = 64
"""Of us in the mixed tree: more than its two users can run."""

CASES = (
    Case("arena", (80, 80, 80), Arena(tokens_max=L4_TOKENS), "chat"),
    Case("arena-paperlike", (80, 80, 80), _paperlike(Arena, single=0.5, more_turns=2.0), "chat"),
    Case("wildchat", (40, 30, 30), WildChat(tokens_max=L4_TOKENS), "chat"),
    Case("wildchat-paperlike", (40, 30, 30), WILDCHAT_PAPERLIKE, "chat"),
    Case("tot", (40, 20, 20), Tree(), "tree"),
    Case("mixed-tree", (2, 20, 20), Tree(), "tree", us_tree=Tree(branches=4, sessions=PROGRAMS)),
    Case("wildchat-skewed", (120, 40, 40), WildChat(tokens_max=L4_TOKENS), "chat", layouts=("444",)),
)
"""The main table; the last is the paper's skew of users without pauses."""

TRACES = {
    "arena": "chat_arenalike_b64.jsonl.gz",
    "wildchat": "chat_wildchatlike_b64.jsonl.gz",
    "tot": "tot_gsm8k_b2.jsonl.gz",
}
TRACE_REGIONS = {"us-east-2": "us", "eu-central-1": "eu", "ap-northeast-1": "asia"}


def cases(traces: Path | None) -> tuple[Case, ...]:
    """The cases of the main table; those that have a trace file, with its requests."""
    if traces is None:
        return CASES
    files = {
        name: File(path=str(traces / file), shuffle=True, tokens_max=L4_TOKENS)
        for name, file in TRACES.items()
    }
    return tuple(replace(case, workload=files.get(case.name, case.workload)) for case in CASES)


SKEWED = Case(
    "wildchat with pauses",
    (120, 40, 40),
    msgspec.structs.replace(WILDCHAT_PAPERLIKE, think_s=38.0, think_spread=0.3),
    "chat",
    think_scale=1.0,
)
"""The paper's diurnal figure: its clients begin a turn every 50 s at the earliest. Here they pause for 38 s
(median) between two turns of a conversation, so that turns are about as far apart."""

DAY_S = 1200.0
DAY_SESSIONS = 4000
DAY_THINK_SCALE = 1 / 6
"""A day in 20 minutes; pauses are as much shorter that sessions stay within an hour of the day."""


def day(users: Counts) -> Case:
    """A day of conversations whose sessions are spread over regions like ``users``."""
    shares = dict(zip(REGIONS, map(float, users), strict=True))
    workload = WildChat(tokens_max=L4_TOKENS, rate_per_s=DAY_SESSIONS / DAY_S, shares=shares)
    return Case("day", users, workload, "chat", think_scale=DAY_THINK_SCALE, day=True)


def scenario(case: Case, layout: Counts, seed: int, duration_s: float, warmup_s: float) -> Scenario:
    """A case on so many replicas per region, as the default decides; a region without any is left out."""
    served = [index for index, count in enumerate(layout) if count]
    users = {REGIONS[index]: case.users[index] for index in served}
    return Scenario(
        seed=seed,
        duration_s=duration_s,
        warmup_s=warmup_s,
        engine={"hold_timeout_s": HOLD_TIMEOUT_S, "hold_age_max_s": HOLD_AGE_S},
        records=True,
        regions=[
            Region(name=REGIONS[index], replicas=[Replicas(count=layout[index], profile=PROFILE)])
            for index in served
        ],
        network=Network(rtt_ms=[[RTT_MS[row][column] for column in served] for row in served]),
        clients=Clients(
            mode="sessions" if case.day else "closed",
            users={} if case.day else users,
            think_scale=case.think_scale,
            max_tokens=MAX_TOKENS,
        ),
        workload=case.workload,
    )


def requests_of(case: Case, made_for: Scenario) -> Requests:
    """The requests of a case: the same for every system and layout with one seed."""
    if case.day:
        return warped(requests(made_for), made_for.duration_s)
    if isinstance(case.workload, File):
        return _of_trace(made_for)
    if case.us_tree is None:
        return requests(made_for)
    us = REGIONS[0]
    users = made_for.clients.users
    others = {name: count for name, count in users.items() if name != us}
    return merged(
        requests(_only(made_for, others, made_for.workload)),
        requests(_only(made_for, {us: users[us]}, case.us_tree)),
    )


def _only(made_for: Scenario, users: dict[str, int], workload: Workload) -> Scenario:
    clients = msgspec.structs.replace(made_for.clients, users=users)
    return msgspec.structs.replace(made_for, clients=clients, workload=workload)


def _of_trace(made_for: Scenario) -> Requests:
    """The requests of a file, whose regions have the names of a cloud."""
    theirs = {ours: name for name, ours in TRACE_REGIONS.items()}
    regions = [msgspec.structs.replace(region, name=theirs[region.name]) for region in made_for.regions]
    users = {theirs[name]: count for name, count in made_for.clients.users.items()}
    read = _only(msgspec.structs.replace(made_for, regions=regions), users, made_for.workload)
    return renamed(requests(read), TRACE_REGIONS)
