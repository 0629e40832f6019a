"""Conversations that need no file: users who share system prompts and take turns.

Same settings, same requests, on every machine (``random.Random`` is the Mersenne Twister).
"""

import itertools
import random
from dataclasses import dataclass

from skylb.load.settings import SyntheticSettings
from skylb.load.workload import Turn

BLOCK_TOKENS = 16
ANSWER_TOKENS_PER_S = 40
"""Open loop: how fast an answer is assumed to come before the user begins to think."""

_SYSTEM_BASE = 1 << 60
_SESSION_BASE = 1 << 32
"""Block ids of a session begin at a multiple of it: no session has more blocks."""

_TURNS_MAX = 8192
"""More than 8 times the largest mean."""


def generate(settings: SyntheticSettings) -> list[Turn]:
    """All requests, by arrival."""
    random_ = random.Random(settings.seed)  # noqa: S311 - a workload, not a secret
    turns: list[Turn] = []
    session_ids = itertools.count()
    for index, region in enumerate(settings.regions):
        starts = _starts(random_, settings)
        for user in range(settings.users):
            system = random_.randrange(settings.systems) if settings.systems else None
            for start_s in starts[user :: settings.users]:
                session = _Session(next(session_ids), region, index * settings.users + user, system, start_s)
                turns += _session(random_, settings, session)
    turns.sort(key=lambda turn: (turn.t_s, turn.id))
    return turns


def _starts(random_: random.Random, settings: SyntheticSettings) -> list[float]:
    """Arrivals of a region's conversations, seconds: a Poisson process."""
    gaps = (random_.expovariate(settings.rate_per_s) for _ in range(settings.users * settings.sessions))
    return list(itertools.accumulate(gaps))


def _length(random_: random.Random, mean: float) -> int:
    """Exponential, at least 1, cut at 8 times the mean."""
    return max(1, round(min(random_.expovariate(1 / mean), 8 * mean)))


def _turn_count(random_: random.Random, mean: float) -> int:
    """Geometric, at least 1, cut at 8 times the mean."""
    count = 1
    while random_.random() > 1 / mean and count < 8 * mean:
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class _Session:
    id: int
    region: str
    user: int
    system: int | None
    start_s: float


def _session(random_: random.Random, settings: SyntheticSettings, session: _Session) -> list[Turn]:
    """One conversation. Whole blocks are listed, as engines hash them; the rest of a prompt is not."""
    system_blocks = 0 if session.system is None else -(-settings.system_tokens // BLOCK_TOKENS)
    base = (session.id + 1) * _SESSION_BASE
    in_tokens = system_blocks * BLOCK_TOKENS
    turns: list[Turn] = []
    t_s = session.start_s
    for number in range(_turn_count(random_, settings.turns)):
        think_s = random_.expovariate(1 / settings.think_s) if number and settings.think_s else 0.0
        if turns:
            in_tokens += turns[-1].out_tokens
            t_s += think_s + turns[-1].out_tokens / ANSWER_TOKENS_PER_S
        in_tokens += _length(random_, settings.user_tokens)
        blocks = in_tokens // BLOCK_TOKENS - system_blocks
        runs = [(base, blocks)] if blocks else []
        if session.system is not None:
            runs.insert(0, (_SYSTEM_BASE + session.system * _SESSION_BASE, system_blocks))
        turns.append(
            Turn(
                id=session.id * _TURNS_MAX + number,
                region=session.region,
                user=session.user,
                session=session.id,
                in_tokens=in_tokens,
                out_tokens=_length(random_, settings.answer_tokens),
                block_tokens=BLOCK_TOKENS,
                runs=tuple(runs),
                t_s=round(t_s, 6),
                after=turns[-1].id if turns else None,
                think_s=round(think_s, 6),
                turn=number + 1,
            )
        )
    return turns
