"""Conversations that need no file: users who share system prompts and take turns.

Same settings, same requests, on every machine (``random.Random`` is the Mersenne Twister).
"""

import itertools
import random

from skylb.tools.load.conversation import Conversation, geometric
from skylb.tools.load.settings import LOCAL, SyntheticSettings
from skylb.tools.load.turn import Turn

BLOCK_TOKENS = 16


def generate(settings: SyntheticSettings) -> list[Turn]:
    """All requests, by arrival."""
    random_ = random.Random(settings.seed)  # noqa: S311 - a workload, not a secret
    turns: list[Turn] = []
    session_ids = itertools.count()
    for index, region in enumerate(settings.regions or (LOCAL,)):
        starts = _starts(random_, settings)
        for user in range(settings.users):
            system = random_.randrange(settings.systems) if settings.systems else None
            for start_s in starts[user :: settings.users]:
                conversation = Conversation(
                    next(session_ids),
                    region,
                    index * settings.users + user,
                    start_s,
                    block_tokens=BLOCK_TOKENS,
                    system=system,
                    system_tokens=settings.system_tokens,
                )
                turns += _talk(random_, settings, conversation)
    turns.sort(key=lambda turn: (turn.t_s, turn.id))
    return turns


def _starts(random_: random.Random, settings: SyntheticSettings) -> list[float]:
    """Arrivals of a region's conversations, seconds: a Poisson process."""
    gaps = (random_.expovariate(settings.rate_per_s) for _ in range(settings.users * settings.sessions))
    return list(itertools.accumulate(gaps))


def _length(random_: random.Random, mean: float) -> int:
    """Exponential, at least 1, cut at 8 times the mean."""
    return max(1, round(min(random_.expovariate(1 / mean), 8 * mean)))


def _talk(random_: random.Random, settings: SyntheticSettings, conversation: Conversation) -> list[Turn]:
    """All turns of one conversation."""
    for number in range(geometric(random_, settings.turns, 8 * settings.turns)):
        think_s = random_.expovariate(1 / settings.think_s) if number and settings.think_s else 0.0
        tokens = _length(random_, settings.user_tokens)
        conversation.say(tokens, _length(random_, settings.answer_tokens), think_s)
    return conversation.turns
