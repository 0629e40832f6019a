"""One conversation as requests: each prompt is the one before, its answer, and something new."""

import random

from skylb.tools.load.turn import Turn

SYSTEM_BASE = 1 << 60
"""Block ids of system prompts begin here; of each further one at a multiple of `SESSION_BASE` above."""

SESSION_BASE = 1 << 32
"""Block ids of a session begin at a multiple of it: no session has more blocks."""

TURNS_MAX = 8192
"""Requests of a session at most."""

ANSWER_TOKENS_PER_S = 40
"""Timetables: how fast an answer is assumed to come before the user begins to think."""


class Conversation:
    """Builds the requests of one session. Whole blocks are listed, as engines hash them; the rest is not.

    Args:
        session: its number; decides ids of requests and blocks.
        region: where its user is.
        user: the user's number.
        start_s: arrival of the first request.
        block_tokens: tokens per block.
        system: number of the system prompt it begins with, if any.
        system_tokens: length of that; whole blocks of it are shared.
    """

    def __init__(
        self,
        session: int,
        region: str,
        user: int,
        start_s: float,
        *,
        block_tokens: int,
        system: int | None = None,
        system_tokens: int = 0,
    ) -> None:
        self.turns: list[Turn] = []
        self._session = session
        self._region = region
        self._user = user
        self._t_s = start_s
        self._block_tokens = block_tokens
        self._system_blocks = 0 if system is None else -(-system_tokens // block_tokens)
        self._system_id = SYSTEM_BASE + (system or 0) * SESSION_BASE
        self._in_tokens = self._system_blocks * block_tokens

    @property
    def tokens(self) -> int:
        """Length of what the next prompt begins with."""
        return self._in_tokens + (self.turns[-1].out_tokens if self.turns else 0)

    def say(self, tokens: int, out_tokens: int, think_s: float = 0.0) -> None:
        """Appends a request: so many new tokens after ``think_s``, answered with ``out_tokens``."""
        number = len(self.turns)
        before = self.turns[-1] if self.turns else None
        if before is not None:
            self._t_s += think_s + before.out_tokens / ANSWER_TOKENS_PER_S
        self._in_tokens = self.tokens + tokens
        blocks = self._in_tokens // self._block_tokens - self._system_blocks
        runs = [((self._session + 1) * SESSION_BASE, blocks)] if blocks else []
        if self._system_blocks:
            runs.insert(0, (self._system_id, self._system_blocks))
        self.turns.append(
            Turn(
                id=self._session * TURNS_MAX + number,
                region=self._region,
                user=self._user,
                session=self._session,
                in_tokens=self._in_tokens,
                out_tokens=out_tokens,
                block_tokens=self._block_tokens,
                runs=tuple(runs),
                t_s=round(self._t_s, 6),
                after=before.id if before is not None else None,
                think_s=round(think_s, 6),
                turn=number + 1,
            )
        )


def geometric(random_: random.Random, mean: float, most: float) -> int:
    """A count of at least 1 with this mean, at most ``most``."""
    count = 1
    while random_.random() > 1 / mean and count < most:
        count += 1
    return count
