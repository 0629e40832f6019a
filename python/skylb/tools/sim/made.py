"""Workloads that are made up. Same kind, plan and seed: same requests, on every machine."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import assert_never

import msgspec

from skylb.tools.load.conversation import SESSION_BASE, SYSTEM_BASE, TURNS_MAX, Conversation, geometric
from skylb.tools.load.turn import Turn
from skylb.tools.load.workload import REQUESTS_MAX, WorkloadError
from skylb.tools.sim.workload import Agent, Arena, File, Kind, Mix, Tree

BLOCK_TOKENS = 16
_SHORT_SHARE = 0.2
_SHORT_TOKENS = 30
"""A fifth of the answers are a few words (of Mooncake's, 20 % are shorter than 90 tokens)."""

_WEIBULL_SHAPE = 2.2
_ZIPF = 1.1
_TOOL_S_MAX = 100.0

_TENANT_SESSIONS = 1 << 20
"""Numbers kept for each tenant's sessions, and so for its texts: 200 tenants stay below `SYSTEM_BASE`."""

_TENANT_SYSTEMS = 10_000
"""Numbers kept for each tenant's system prompts."""

_TEMPLATE_TOKENS = 48
_TEMPLATE_ID = SYSTEM_BASE - (1 << 40)
_STEP_TOKENS = (62, 40, 34, 24)
"""Tree of Thoughts: what each depth's prompt adds to the answers before it; deeper ones as the last."""

_STEP_ANSWERS = ((70, 25), (120, 40), (150, 50), (70, 30))
"""Mean and deviation of answers by depth."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is needed, and from where.

    Attributes:
        shares: of the sessions, by region; all above zero.
        users: closed loop: users at once, by region; else empty.
        duration_s: other modes: sessions begin until then.
    """

    shares: dict[str, float]
    users: dict[str, int]
    duration_s: float


@dataclass(frozen=True, slots=True)
class Start:
    """When, where and for which user a session begins."""

    session: int
    region: str
    user: int
    at_s: float


Maker = Callable[[random.Random, Start], list[Turn]]

NONE = "workload: no session begins before duration_s, or tokens_max leaves none"
"""What is wrong with a workload without requests."""

_SESSIONS_MIN = 256
_SESSIONS_PER_SEAT = 12
"""Closed loop: sessions for each user at once; then it starts over."""


def make(kind: Arena | Agent | Tree | Mix, plan: Plan, seed: int) -> list[Turn]:
    """All requests, by arrival.

    Raises:
        WorkloadError: there would be none, or too many.
    """
    turns = draw(kind, plan, seed)
    if not turns:
        raise WorkloadError(NONE)
    return turns


def draw(kind: Arena | Agent | Tree | Mix, plan: Plan, seed: int) -> list[Turn]:
    """As `make`, where none are too few for nobody.

    Raises:
        WorkloadError: there would be too many.
    """
    random_ = random.Random(seed)  # noqa: S311 - a workload, not a secret
    maker = _maker(kind)
    turns: list[Turn] = []
    for start in _starts(kind, plan, random_, _per_user(kind)):
        made = maker(random_, start)
        if kind.tokens_max is None or all(t.in_tokens + t.out_tokens <= kind.tokens_max for t in made):
            turns += made
        if len(turns) > REQUESTS_MAX:
            raise WorkloadError(f"workload: more than {REQUESTS_MAX} requests")
    turns.sort(key=lambda turn: (turn.t_s, turn.id))
    return turns


def _per_user(kind: Arena | Agent | Tree | Mix) -> int:
    return kind.chat.sessions_per_user if isinstance(kind, Mix) else kind.sessions_per_user


def _starts(kind: Kind, plan: Plan, random_: random.Random, per_user: int) -> Iterator[Start]:
    """A Poisson process; each region's sessions come from users who have ``per_user`` each."""
    regions, weights = list(plan.shares), list(plan.shares.values())
    sessions = kind.sessions
    if sessions is None and plan.users:
        sessions = max(_SESSIONS_MIN, _SESSIONS_PER_SEAT * sum(plan.users.values()))
    pools = {region: _Users(index, per_user) for index, region in enumerate(regions)}
    at_s = 0.0
    for session in count():
        at_s = _next_start_s(kind, random_, at_s)
        if session == sessions or (sessions is None and at_s >= plan.duration_s):
            return
        region = random_.choices(regions, weights)[0]
        yield Start(session, region, pools[region].draw(random_), at_s)


def _next_start_s(kind: Kind, random_: random.Random, at_s: float) -> float:
    """When the session after one at ``at_s`` begins: a Poisson process, faster during the burst.

    A Poisson process has no memory. So a gap that would cross an edge of the burst is drawn anew there.
    """
    if kind.burst_s:
        ends_s = kind.burst_at_s + kind.burst_s
        for edge_s, rate_per_s in (
            (kind.burst_at_s, kind.rate_per_s),
            (ends_s, kind.rate_per_s * kind.burst_factor),
        ):
            if at_s < edge_s:
                next_s = at_s + random_.expovariate(rate_per_s)
                if next_s < edge_s:
                    return next_s
                at_s = edge_s
    return at_s + random_.expovariate(kind.rate_per_s)


class _Users:
    """Users of one region, some of them at once; one who has had all their sessions is replaced."""

    AT_ONCE = 32

    def __init__(self, region: int, per_user: int) -> None:
        self._next = count(region << 32)
        self._left = [(next(self._next), per_user) for _ in range(self.AT_ONCE)]
        self._per_user = per_user

    def draw(self, random_: random.Random) -> int:
        at = random_.randrange(self.AT_ONCE)
        user, left = self._left[at]
        self._left[at] = (user, left - 1) if left > 1 else (next(self._next), self._per_user)
        return user


def _maker(kind: Arena | Agent | Tree | Mix) -> Maker:
    match kind:
        case Mix():
            chat, tree = _maker(kind.chat), _maker(kind.tree)
            # Of the sessions, so many are programs that their requests are their share of all.
            per_chat, per_tree = _turns_mean(kind.chat), _turns_mean(kind.tree)
            weight = (1 - kind.share) * per_chat
            program = weight / (weight + kind.share * per_tree)
            return lambda random_, start: (tree if random_.random() < program else chat)(random_, start)
        case Tree():
            return lambda random_, start: _Program(kind, random_, start).turns
        case Agent():
            systems = _Systems(kind.systems, kind.system_tokens)
            return lambda random_, start: _agent(kind, systems, random_, start)
        case Arena():
            systems = _Systems(kind.systems, kind.system_tokens)
            return lambda random_, start: _chat(kind, systems, random_, start)
        case _:
            assert_never(kind)


def _turns_mean(kind: Arena | Tree) -> float:
    if isinstance(kind, Tree):
        return float(sum(kind.branches**depth for depth in range(1, kind.depth + 1)))
    return 1 + (1 - kind.single) * kind.more_turns


class _Systems:
    """System prompts that users share: popularity after Zipf, lengths from a quarter to twice the mean."""

    LENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)

    def __init__(self, systems: int, tokens: int) -> None:
        self._numbers = range(systems)
        self._weights = [(number + 1) ** -_ZIPF for number in self._numbers]
        self._tokens = tokens

    def of(self, user: int) -> tuple[int | None, int]:
        """Number and length of a user's system prompt: always the same for one user."""
        if not self._numbers:
            return None, 0
        random_ = random.Random(user)  # noqa: S311 - a workload, not a secret
        number = random_.choices(self._numbers, self._weights)[0]
        return number, max(1, round(self._tokens * self.LENGTHS[(number * 5 + 3) % len(self.LENGTHS)]))


def _open(start: Start, systems: _Systems) -> Conversation:
    system, system_tokens = systems.of(start.user)
    return Conversation(
        start.session,
        start.region,
        start.user,
        start.at_s,
        block_tokens=BLOCK_TOKENS,
        system=system,
        system_tokens=system_tokens,
    )


def _log_normal(random_: random.Random, median: float, sigma: float) -> float:
    return random_.lognormvariate(math.log(median), sigma) if median > 0 else 0.0


def _tokens(random_: random.Random, median: float, sigma: float) -> int:
    return max(1, round(_log_normal(random_, median, sigma)))


def _chat(kind: Arena, systems: _Systems, random_: random.Random, start: Start) -> list[Turn]:
    conversation = _open(start, systems)
    more = 0 if random_.random() < kind.single else geometric(random_, kind.more_turns, TURNS_MAX - 2)
    for number in range(1 + more):
        if random_.random() < _SHORT_SHARE:
            answer = random_.expovariate(1 / _SHORT_TOKENS)
        else:
            scale = kind.answer_tokens / math.gamma(1 + 1 / _WEIBULL_SHAPE)
            answer = random_.weibullvariate(scale, _WEIBULL_SHAPE)
        median, sigma = (
            (kind.first_tokens, kind.first_spread) if number == 0 else (kind.next_tokens, kind.next_spread)
        )
        think_s = _log_normal(random_, kind.think_s, kind.think_spread) if number else 0.0
        tokens = _tokens(random_, median, sigma)
        if number == 0 and kind.long_share and random_.random() < kind.long_share:
            tokens = _long_tokens(kind, random_)
        conversation.say(tokens, max(1, round(answer)), think_s)
    return conversation.turns


def _long_tokens(kind: Arena, random_: random.Random) -> int:
    """Length of a long message."""
    low, high = sorted((math.log(kind.long_min_tokens), math.log(kind.long_max_tokens)))
    return round(math.exp(random_.uniform(low, high)))


def _agent(kind: Agent, systems: _Systems, random_: random.Random, start: Start) -> list[Turn]:
    conversation = _open(start, systems)
    for number in range(geometric(random_, kind.turns, TURNS_MAX - 1)):
        think_s = min(_log_normal(random_, kind.think_s, kind.think_spread), _TOOL_S_MAX) if number else 0.0
        median, sigma = (
            (kind.first_tokens, kind.first_spread)
            if number == 0
            else (kind.result_tokens, kind.result_spread)
        )
        answer = _tokens(random_, kind.answer_tokens, kind.answer_spread)
        conversation.say(_tokens(random_, median, sigma), answer, think_s)
    return conversation.turns


class _Program:
    """One tree of requests; every answer is followed by ``branches`` requests that repeat all before."""

    def __init__(self, kind: Tree, random_: random.Random, start: Start) -> None:
        self.turns: list[Turn] = []
        self._kind = kind
        self._random = random_
        self._start = start
        self._next_block = (start.session + 1) << 32
        template = [(_TEMPLATE_ID, _TEMPLATE_TOKENS // BLOCK_TOKENS)]
        question = _tokens(random_, kind.question_tokens, kind.question_spread)
        self._grow(0, template, question, None)

    def _grow(self, depth: int, path: list[tuple[int, int]], tokens: int, after: Turn | None) -> None:
        """All requests that follow one answer; ``path`` are the blocks of the ``tokens`` before."""
        if depth == self._kind.depth:
            return
        step = min(depth, len(_STEP_TOKENS) - 1)
        in_tokens = tokens + _STEP_TOKENS[step]
        path = self._extended(path, in_tokens)
        first: tuple[int, list[tuple[int, int]]] | None = None
        for _ in range(self._kind.branches):
            if first is not None and self._random.random() < self._kind.same:
                out_tokens, answered = first
            else:
                out_tokens = round(min(512.0, max(16.0, self._random.gauss(*_STEP_ANSWERS[step]))))
                answered = self._extended(path, in_tokens + out_tokens)
            first = first or (out_tokens, answered)
            turn = self._turn(in_tokens, out_tokens, path, after)
            self._grow(depth + 1, answered, in_tokens + out_tokens, turn)

    def _extended(self, path: list[tuple[int, int]], tokens: int) -> list[tuple[int, int]]:
        """The path with new blocks up to so many tokens; the last, partial one is not listed."""
        missing = tokens // BLOCK_TOKENS - sum(length for _, length in path)
        if missing <= 0:
            return path
        start, self._next_block = self._next_block, self._next_block + missing
        return [*path, (start, missing)]

    def _turn(self, in_tokens: int, out_tokens: int, path: list[tuple[int, int]], after: Turn | None) -> Turn:
        start = self._start
        if len(self.turns) >= TURNS_MAX:
            raise WorkloadError(f"workload: branches and depth: more than {TURNS_MAX} requests a program")
        turn = Turn(
            id=start.session * TURNS_MAX + len(self.turns),
            region=start.region,
            user=start.user,
            session=start.session,
            in_tokens=in_tokens,
            out_tokens=out_tokens,
            block_tokens=BLOCK_TOKENS,
            runs=tuple(path),
            t_s=round(start.at_s if after is None else after.t_s + after.out_tokens / 40, 6),
            after=after.id if after is not None else None,
            turn=len(self.turns) + 1,
        )
        self.turns.append(turn)
        return turn


def resampled(turns: list[Turn], kind: File, plan: Plan, seed: int) -> list[Turn]:
    """A file's sessions in an order drawn by the seed, beginning as a Poisson process."""
    random_ = random.Random(seed)  # noqa: S311 - a workload, not a secret
    sessions: dict[int, list[Turn]] = {}
    for turn in turns:
        sessions.setdefault(turn.session, []).append(turn)
    drawn = list(sessions.values())
    random_.shuffle(drawn)
    closed = bool(plan.users)
    at_s = 0.0
    found: list[Turn] = []
    for session in drawn[: kind.sessions]:
        at_s = _next_start_s(kind, random_, at_s)
        if at_s >= plan.duration_s and not closed:
            break
        shift_s = at_s - session[0].t_s
        found += [_moved(turn, turn.t_s + shift_s) for turn in session]
    found.sort(key=lambda turn: turn.t_s)
    return found


def of_tenant(turns: list[Turn], tenant: int, from_s: float) -> list[Turn]:
    """The same requests with users, sessions and texts that no other tenant has, so much later.

    Args:
        turns: made up as if there were no other tenant.
        tenant: its number.
        from_s: when its first session may begin.
    """
    session = tenant * _TENANT_SESSIONS
    text, system = session * SESSION_BASE, tenant * _TENANT_SYSTEMS * SESSION_BASE

    def own(run: tuple[int, int]) -> tuple[int, int]:
        return run[0] + (system if run[0] >= _TEMPLATE_ID else text), run[1]

    return [
        msgspec.structs.replace(
            turn,
            id=turn.id + session * TURNS_MAX,
            user=turn.user + (tenant << 48),
            session=turn.session + session,
            runs=tuple(own(run) for run in turn.runs),
            after=None if turn.after is None else turn.after + session * TURNS_MAX,
            t_s=turn.t_s + from_s,
        )
        for turn in turns
    ]


def _moved(turn: Turn, t_s: float) -> Turn:
    return Turn(
        id=turn.id,
        region=turn.region,
        user=turn.user,
        session=turn.session,
        in_tokens=turn.in_tokens,
        out_tokens=turn.out_tokens,
        block_tokens=turn.block_tokens,
        runs=turn.runs,
        t_s=max(0.0, t_s),
        after=turn.after,
        think_s=turn.think_s,
        turn=turn.turn,
    )
