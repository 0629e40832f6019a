"""Streams of completions with token ids: prompts are exact, and answers are what the next turn repeats."""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from skylb.tools.load.conversation import SYSTEM_BASE
from skylb.tools.load.turn import Turn
from skylb.tools.load.workload import User, group_users

MODEL = "tiny"
TOKENS = range(8, 1000)
"""Ids that prompts are made of: no special ones."""


@dataclass
class Outcome:
    """One request as the client saw it; ``arrivals``: when it had how many tokens of the answer."""

    sent_s: float
    ttft_s: float = 0.0
    e2e_s: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer: list[int] = field(default_factory=list)


async def complete(
    session: aiohttp.ClientSession,
    url: str,
    prompt: Sequence[int],
    tokens: int,
    user: str = "",
    origin_s: float = 0,
    reached: tuple[int, asyncio.Event] | None = None,
) -> Outcome:
    """One streamed completion of exactly ``tokens`` tokens; ``reached`` is set after so many of them.

    Raises:
        aiohttp.ClientError: it failed.
    """
    body: dict[str, Any] = {
        "model": MODEL,
        "prompt": list(prompt),
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "user": user,
    }
    began_s = time.monotonic()
    outcome = Outcome(began_s - origin_s)
    async with session.post(f"{url}/v1/completions", json=body, raise_for_status=True) as answer:
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            now_s = time.monotonic()
            event = json.loads(line[6:])
            if event.get("usage"):
                usage = event["usage"]
                outcome.prompt_tokens = usage["prompt_tokens"]
                outcome.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            if event.get("choices"):
                outcome.ttft_s = outcome.ttft_s or now_s - began_s
                outcome.answer += event["choices"][0].get("token_ids") or []
                outcome.arrivals.append((now_s, len(outcome.answer)))
                if reached and len(outcome.answer) >= reached[0]:
                    reached[1].set()
    outcome.e2e_s = time.monotonic() - began_s
    return outcome


def session_of(limit: int = 0) -> aiohttp.ClientSession:
    """A client without a limit of connections."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit), timeout=aiohttp.ClientTimeout(total=120)
    )


def drawn(seed: str, count: int) -> list[int]:
    """Token ids that the seed decides."""
    return random.Random(seed).choices(TOKENS, k=count)


class Users:
    """Users who wait for answers and think, as the simulator's closed loop has them.

    A prompt is the system prompt, then message and answer in turns: the engine's own answers.

    Args:
        url: where requests go.
        turns: the workload, made by `skylb.tools.load.conversation`.
        seats: users at once.
        duration_s: nothing is sent after it.
        seed: of the texts; other seeds share nothing.
    """

    def __init__(self, url: str, turns: Sequence[Turn], seats: int, duration_s: float, seed: int) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self._url = url
        (users,) = group_users(turns).values()
        self._users = iter(users)
        self._seats = seats
        self._duration_s = duration_s
        self._seed = seed
        self._began_s = 0.0

    async def run(self) -> dict[int, Outcome]:
        """Everything, until nobody has anything to send; outcomes by request."""
        self._began_s = time.monotonic()
        async with session_of() as http:
            await asyncio.gather(*(self._seat(http) for _ in range(self._seats)))
        return self.outcomes

    def _over(self) -> bool:
        return time.monotonic() - self._began_s >= self._duration_s

    async def _seat(self, http: aiohttp.ClientSession) -> None:
        for user in self._users:
            await self._user(http, user)
            if self._over():
                return

    async def _user(self, http: aiohttp.ClientSession, user: User) -> None:
        for session in user.sessions:
            (turn,) = session.roots
            text: list[int] = []
            while not self._over():
                text += self._new(turn, len(text))
                name = str(turn.user)
                outcome = await complete(http, self._url, text, turn.out_tokens, name, self._began_s)
                self.outcomes[turn.id] = outcome
                text += outcome.answer
                followers = session.followers.get(turn.id)
                if not followers:
                    break
                turn = followers[0]
                await asyncio.sleep(turn.think_s)

    def _new(self, turn: Turn, have: int) -> list[int]:
        """What a request adds to the text before: the system prompt at the beginning, and a message."""
        system: list[int] = []
        if not have and turn.runs and turn.runs[0][0] >= SYSTEM_BASE:
            start, blocks = turn.runs[0]
            system = drawn(f"{self._seed} system {start}", blocks * turn.block_tokens)
        return system + drawn(f"{self._seed} {turn.id}", turn.in_tokens - have - len(system))
