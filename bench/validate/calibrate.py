"""How fast a real engine is: a few micro-runs, and the replica model's parameters that fit them."""

import asyncio
from dataclasses import dataclass
from itertools import count
from statistics import fmean, median

import aiohttp
import numpy as np

from bench.validate.client import Outcome, complete, drawn, session_of

PREFILLS = (64, 256, 512, 1024, 1536, 1984)
REPEATS = 5
BATCHES = ((1, 64), (2, 64), (4, 64), (8, 64), (8, 1024), (4, 1920))
"""Requests at once, and the length of their prompts."""

DECODE_TOKENS = 96


@dataclass(frozen=True)
class Speeds:
    """What fits, in microseconds.

    Attributes:
        overhead: of a request, whatever it computes: tokens in, scheduling, the way there and back.
        step_base, prefill_token, decode_seq, context_token: as of the model's profile.
    """

    overhead_us: float
    step_base_us: float
    prefill_token_us: float
    decode_seq_us: float
    context_token_us: float


class Calibration:
    """Micro-runs against one engine."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._number = count()

    async def run(self) -> Speeds:
        """All of them, and the fit."""
        async with session_of() as http:
            await self._warm(http)
            prefills = [(tokens, await self._prefill(http, tokens)) for tokens in PREFILLS]
            decodes = [(*batch, await self._decode(http, *batch)) for batch in BATCHES]
        return fit(prefills, decodes)

    async def _warm(self, http: aiohttp.ClientSession) -> None:
        for tokens in PREFILLS:
            await self._one(http, tokens, 8)

    async def _one(self, http: aiohttp.ClientSession, prompt_tokens: int, tokens: int) -> Outcome:
        prompt = drawn(f"calibration {next(self._number)}", prompt_tokens)
        return await complete(http, self._url, prompt, tokens)

    async def _prefill(self, http: aiohttp.ClientSession, tokens: int) -> float:
        """Seconds to the first token of a prompt that nothing is cached of, on an idle engine."""
        return median([(await self._one(http, tokens, 1)).ttft_s for _ in range(REPEATS)])

    async def _decode(self, http: aiohttp.ClientSession, batch: int, prompt_tokens: int) -> float:
        """Seconds per token while so many requests decode."""
        steps_s = []
        for _ in range(2):
            outcomes = await asyncio.gather(
                *(self._one(http, prompt_tokens, DECODE_TOKENS) for _ in range(batch))
            )
            # While all decode: from when the last one began to when the first one ended. An event may
            # bring several tokens.
            begin_s = max(one.arrivals[0][0] for one in outcomes)
            end_s = min(one.arrivals[-1][0] for one in outcomes)
            for one in outcomes:
                within = [(at_s, tokens) for at_s, tokens in one.arrivals if begin_s <= at_s <= end_s]
                if len(within) > 1:
                    steps_s.append((within[-1][0] - within[0][0]) / (within[-1][1] - within[0][1]))
        return fmean(steps_s)


def fit(prefills: list[tuple[int, float]], decodes: list[tuple[int, int, float]]) -> Speeds:
    """Least squares, relative errors alike; nothing below zero."""
    rows = [[1.0, batch, batch * (prompt + DECODE_TOKENS / 2)] for batch, prompt, _ in decodes]
    step_base_s, decode_seq_s, context_s = _solve(rows, [gap_s for *_, gap_s in decodes])
    fixed_s, token_s = _solve([[1.0, tokens] for tokens, _ in prefills], [ttft_s for _, ttft_s in prefills])
    return Speeds(
        overhead_us=max(0.0, fixed_s - step_base_s) * 1e6,
        step_base_us=step_base_s * 1e6,
        prefill_token_us=token_s * 1e6,
        decode_seq_us=decode_seq_s * 1e6,
        context_token_us=context_s * 1e6,
    )


def _solve(rows: list[list[float]], values: list[float]) -> list[float]:
    """Coefficients; one that would be negative is left out."""
    matrix = np.array(rows) / np.array(values)[:, None]
    kept = list(range(matrix.shape[1]))
    while kept:
        found = np.linalg.lstsq(matrix[:, kept], np.ones(len(values)), rcond=None)[0]
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    whole = [0.0] * matrix.shape[1]
    for at, value in zip(kept, found.tolist() if kept else [], strict=True):
        whole[at] = float(value)
    return whole
