"""How fast a real engine is: micro-runs of one kind each, and the replica model's parameters that fit them.

All samples go into one system of equations, so that what a step costs whatever it computes is told from
what a request costs; none is of a run that is predicted. Rounds lie between the runs that are predicted, so
that both see the machine in the same state.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, pairwise
from statistics import fmean, median
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from bench.validate.client import Outcome, complete, drawn, session_of

PREFILLS = (32, 64, 128, 256, 512, 1024, 1984)
CACHED = ((384, 64), (384, 256), (1024, 64), (1024, 512), (1920, 128))
"""Length of a prompt that was asked before, whole blocks of it, and of what comes after it."""

WARM = (64, 1024)
BATCHES = ((1, 64), (2, 64), (4, 64), (8, 64), (4, 512), (8, 512), (4, 1920))
"""Requests at once, and the length of their prompts."""

DECODE_TOKENS = 96
MIXED = ((2, 256), (4, 64), (7, 64), (7, 256), (7, 640))
"""Requests that decode, and the length of a prompt that comes while they do."""

ERROR_TRUSTED = 0.1
FITS = 30

MIXED_PROMPT = 128
MIXED_TOKENS = 64
MIXED_AFTER = 24
"""Tokens of the first of them after which it comes."""


@dataclass(frozen=True)
class Speeds:
    """What fits, in microseconds.

    Attributes:
        overhead: of a request, whatever it computes: through the balancer, tokens in, the way back.
        wake: of a request that finds the engine idle, on top: its processes have to be woken one after
            another. Not part of the model: under load the engine does not idle.
        step_base, prefill_token, attention, decode_seq, context_token: as of the model's profile.
    """

    overhead_us: float
    wake_us: float
    step_base_us: float
    prefill_token_us: float
    attention_us: float
    decode_seq_us: float
    context_token_us: float


@dataclass(frozen=True)
class Sample:
    """A time that was measured, and what was done in it: numbers of `Speeds`' fields."""

    name: str
    seconds: float
    requests: int = 0
    wakes: int = 0
    steps: float = 1.0
    prefill: int = 0
    attended: float = 0.0
    decodes: float = 0.0
    context: float = 0.0

    def row(self) -> list[float]:
        """In the order of `Speeds`."""
        work = [self.steps, self.prefill, self.attended, self.decodes, self.context]
        return [self.requests, self.wakes, *work]


class Calibration:
    """Micro-runs against one engine: the way through the balancer is measured, batches go straight to it.

    Args:
        front: the balancer.
        server: the engine.
        number: of this round; its prompts are others than those of other rounds.
    """

    def __init__(self, front: str, server: str, number: int) -> None:
        self._front = front
        self._server = server
        self._round = number
        self._number = count()

    async def run(self) -> list[Sample]:
        """One round: a sample of each kind."""
        async with session_of() as http:
            for tokens in WARM:
                await complete(http, self._front, self._fresh(tokens), 8)
            samples = [await self._prefill(http, 0, tokens) for tokens in PREFILLS]
            samples += [await self._prefill(http, *sizes) for sizes in CACHED]
            samples += [await self._decode(http, *batch) for batch in BATCHES]
            for sizes in MIXED:
                samples += await self._mixed(http, *sizes)
        return samples

    def _fresh(self, tokens: int) -> list[int]:
        return drawn(f"calibration {self._round} {next(self._number)}", tokens)

    async def _prefill(self, http: aiohttp.ClientSession, before: int, tokens: int) -> Sample:
        """The first token of a prompt of which so many tokens are cached, on an idle engine."""
        text = self._fresh(before)
        if before:
            # The last token of a prompt is never taken from the cache: one more makes the block whole.
            await complete(http, self._server, [*text, *self._fresh(1)], 1)
        outcome = await complete(http, self._front, text + self._fresh(tokens), 1)
        if outcome.cached_tokens != before:
            raise AssertionError(f"{outcome.cached_tokens} tokens were cached: expected {before}")
        name = f"first token, {before} cached + {tokens}"
        return Sample(name, outcome.ttft_s, 1, 1, prefill=tokens, attended=_attended(before, tokens))

    async def _decode(self, http: aiohttp.ClientSession, batch: int, prompt_tokens: int) -> Sample:
        """A token while so many requests decode."""
        prompts = [self._fresh(prompt_tokens) for _ in range(batch)]
        outcomes = await asyncio.gather(
            *(complete(http, self._server, prompt, DECODE_TOKENS) for prompt in prompts)
        )
        # While all decode: from when the last one began to when the first one ended. An event may bring
        # several tokens.
        begin_s = max(one.arrivals[0][0] for one in outcomes)
        end_s = min(one.arrivals[-1][0] for one in outcomes)
        steps_s = []
        for one in outcomes:
            within = [(at_s, tokens) for at_s, tokens in one.arrivals if begin_s <= at_s <= end_s]
            if len(within) > 1:
                steps_s.append((within[-1][0] - within[0][0]) / (within[-1][1] - within[0][1]))
        context = batch * (prompt_tokens + DECODE_TOKENS / 2)
        name = f"step, {batch} decode after {prompt_tokens}"
        return Sample(name, fmean(steps_s), decodes=batch, context=context)

    async def _mixed(self, http: aiohttp.ClientSession, batch: int, tokens: int) -> list[Sample]:
        """The step that computes a whole prompt while others decode, and that prompt's first token."""
        under_way = asyncio.Event()
        prompts = [self._fresh(MIXED_PROMPT) for _ in range(batch)]
        reached = [(MIXED_AFTER, under_way), *[None] * (batch - 1)]
        begun = [
            complete(http, self._server, prompt, MIXED_TOKENS, reached=after)
            for prompt, after in zip(prompts, reached, strict=True)
        ]
        decoding = asyncio.gather(*begun)
        await reached_while(under_way, decoding)
        newcomer = await complete(http, self._front, self._fresh(tokens), 1)
        came_s = newcomer.arrivals[0][0]
        steps_s = []
        # The newcomer's token is of the same step as one of the others' that came about then; that step is
        # the longest gap there.
        for one in await decoding:
            times_s = [at_s for at_s, _ in one.arrivals]
            at = min(range(len(times_s)), key=lambda n: abs(times_s[n] - came_s))
            near_s = times_s[max(0, at - 2) : at + 2]
            steps_s.append(max(after - before for before, after in pairwise(near_s)))
        what = f"{batch} decode beside a prompt of {tokens}"
        attended, context = _attended(0, tokens), batch * (MIXED_PROMPT + MIXED_AFTER)
        step = Sample(f"step, {what}", median(steps_s), 0, 0, 1.0, tokens, attended, batch, context)
        # It comes in the midst of a step: half of one is over before its own.
        steps, decodes, reads = 1.5, 1.5 * batch, 1.5 * context
        name = f"first token, {what}"
        first = Sample(name, newcomer.ttft_s, 1, 0, steps, tokens, attended, decodes, reads)
        return [step, first]


async def reached_while(under_way: asyncio.Event, decoding: "asyncio.Future[list[Outcome]]") -> None:
    """Waits until the answers have come so far; raises what ends them before that.

    Raises:
        RuntimeError: they ended before it.
    """
    reached = asyncio.create_task(under_way.wait())
    either: set[asyncio.Future[Any]] = {reached, decoding}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        reached.cancel()
    if not under_way.is_set():
        await decoding
        raise RuntimeError(f"the answers ended before their token {MIXED_AFTER}")


def together(rounds: Sequence[Sequence[Sample]]) -> list[Sample]:
    """The samples of several rounds, each with the median of its times."""
    return [
        replace(same[0], seconds=median(one.seconds for one in same)) for same in zip(*rounds, strict=True)
    ]


def _attended(before: int, tokens: int) -> float:
    """Pairs of a token computed and one before it."""
    return tokens * before + tokens * (tokens - 1) / 2


def fit(samples: Sequence[Sample]) -> Speeds:
    """Least squares, relative errors alike, large ones with less weight; nothing below zero."""
    matrix = np.array([sample.row() for sample in samples])
    matrix /= np.array([sample.seconds for sample in samples])[:, None]
    scale = np.linalg.norm(matrix, axis=0)
    matrix /= scale
    weights = np.ones(len(samples))
    for _ in range(FITS):
        whole = _solve(matrix, weights)
        errors = np.abs(matrix @ whole - 1)
        weights = np.sqrt(ERROR_TRUSTED / np.maximum(errors, ERROR_TRUSTED))
    names = [field.name for field in fields(Speeds)]
    return Speeds(**dict(zip(names, (whole / scale * 1e6).tolist(), strict=True)))


def _solve(matrix: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """What makes every row one, as nearly as can be; what would be negative is left out."""
    kept = list(range(matrix.shape[1]))
    while True:
        found = np.linalg.lstsq(matrix[:, kept] * weights[:, None], weights, rcond=None)[0]
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))  # columns are scaled alike, so that the smallest is the least of all
    whole = np.zeros(matrix.shape[1])
    whole[kept] = found
    return whole


def residuals(samples: Sequence[Sample], speeds: Speeds) -> list[float]:
    """By how much the fit is off, as shares of what was measured."""
    factors = [getattr(speeds, field.name) / 1e6 for field in fields(speeds)]
    fitted = [float(np.dot(sample.row(), factors)) for sample in samples]
    return [ours / sample.seconds - 1 for ours, sample in zip(fitted, samples, strict=True)]
