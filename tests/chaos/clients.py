"""Clients that notice everything: the SDKs of OpenAI and Anthropic, with their retries off.

Each asks one question after the other. A mock replica's answer follows from the question alone, so the same
question at a replica that nothing happens to says what the answer must be, to the letter.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import anthropic
import httpx2
import openai

from tests.chaos.sockets import Lines

TIMEOUT_S = 120.0
"""Longer than any scene: an answer that does not come is noticed by its own time-out, not by a client's."""

TOKENS = (16, 64)
"""Of an answer, at least and at most."""

KEY = "none"


@dataclass(frozen=True)
class Question:
    """What is asked."""

    name: str
    text: str
    tokens: int


@dataclass
class Ledger:
    """What the clients got."""

    answered: dict[Question, tuple[str, str]] = field(default_factory=dict)
    """By question, who asked, and the text of the answer."""
    noticed: Counter[str] = field(default_factory=Counter)
    """Errors, by who asked and what it was told."""
    gaps_s: list[float] = field(default_factory=list)
    """The longest pause between two parts of each stream."""
    broken: set[str] = field(default_factory=set)
    """Names of the questions whose answer did not come."""
    cut: set[str] = field(default_factory=set)
    """Names of the questions whose answer cannot come: their connections were to a worker that was killed."""


class Sdks:
    """The clients of one place: a balancer, or a replica that says what is right."""

    def __init__(self, url: str, client: httpx2.AsyncClient | None = None) -> None:
        self.openai = openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=TIMEOUT_S, http_client=client
        )
        self.anthropic = anthropic.AsyncAnthropic(
            base_url=url, api_key=KEY, max_retries=0, timeout=TIMEOUT_S, http_client=client
        )

    async def close(self) -> None:
        """Closes their connections."""
        await self.openai.close()
        await self.anthropic.close()


Pause = Callable[[], None]
"""Called with each part of a stream."""

Way = Callable[[Sdks, Question, Pause], Awaitable[str]]
"""Asks, and reads the whole text."""


async def openai_stream(sdks: Sdks, question: Question, part: Pause) -> str:
    """Chat Completions of OpenAI's SDK, streamed; fails where the stream has no end of its own."""
    texts, reasons, ids = [], [], set()
    stream = await sdks.openai.chat.completions.create(
        model="mock",
        messages=[{"role": "user", "content": question.text}],
        max_tokens=question.tokens,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    usages = []
    async for chunk in stream:
        part()
        ids.add(chunk.id)
        if chunk.usage is not None:
            usages.append(chunk.usage.completion_tokens)
        for choice in chunk.choices:
            texts.append(choice.delta.content or "")
            if choice.finish_reason is not None:
                reasons.append(choice.finish_reason)
    if (len(ids), reasons, usages) != (1, ["length"], [question.tokens]):
        raise AssertionError(f"ids {len(ids)}, reasons {reasons}, usage {usages} of {question.tokens}")
    return "".join(texts)


async def openai_whole(sdks: Sdks, question: Question, part: Pause) -> str:
    """The same, not streamed."""
    del part
    answer = await sdks.openai.chat.completions.create(
        model="mock",
        messages=[{"role": "user", "content": question.text}],
        max_tokens=question.tokens,
        extra_body={"ignore_eos": True},
    )
    return answer.choices[0].message.content or ""


async def openai_text(sdks: Sdks, question: Question, part: Pause) -> str:
    """Completions of OpenAI's SDK, streamed."""
    texts, reasons = [], []
    stream = await sdks.openai.completions.create(
        model="mock",
        prompt=question.text,
        max_tokens=question.tokens,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    async for chunk in stream:
        part()
        for choice in chunk.choices:
            texts.append(choice.text)
            if choice.finish_reason is not None:
                reasons.append(choice.finish_reason)
    if reasons != ["length"]:
        raise AssertionError(f"reasons {reasons}")
    return "".join(texts)


async def anthropic_stream(sdks: Sdks, question: Question, part: Pause) -> str:
    """Messages of Anthropic's SDK, streamed."""
    async with sdks.anthropic.messages.stream(
        model="mock",
        messages=[{"role": "user", "content": question.text}],
        max_tokens=question.tokens,
    ) as stream:
        async for _ in stream:
            part()
        return await stream.get_final_text()


async def anthropic_whole(sdks: Sdks, question: Question, part: Pause) -> str:
    """The same, not streamed."""
    del part
    answer = await sdks.anthropic.messages.create(
        model="mock",
        messages=[{"role": "user", "content": question.text}],
        max_tokens=question.tokens,
    )
    return "".join(block.text for block in answer.content if block.type == "text")


WAYS: dict[str, Way] = {
    way.__name__: way for way in (openai_stream, openai_whole, openai_text, anthropic_stream, anthropic_whole)
}


ERRORS = (openai.OpenAIError, anthropic.AnthropicError, httpx2.HTTPError, OSError, AssertionError)
"""What clients notice. A stream that breaks is an error of the HTTP client below."""


class Crowd:
    """Clients that ask until they are stopped.

    Args:
        url: the balancer's.
        count: of clients; the ways to ask take turns.
        name: begins the name of every question.
        ways: by name, of `WAYS`.
        lines: connections for each request alone, whose ports are to be known; else they are kept.
    """

    def __init__(
        self,
        url: str,
        count: int,
        name: str,
        ways: Sequence[str] = tuple(WAYS),
        lines: Lines | None = None,
    ) -> None:
        self.ledger = Ledger()
        self.asking: dict[int, str] = {}
        """The name of what each client asks now."""
        self._name = name
        self._stopping = False
        shared = Sdks(url)
        self._sdks = [
            shared if lines is None else Sdks(url, lines.client(number, TIMEOUT_S)) for number in range(count)
        ]
        self._clients = [
            asyncio.ensure_future(self._client(number, ways[number % len(ways)])) for number in range(count)
        ]

    async def _client(self, number: int, way: str) -> None:
        rng = random.Random(f"{self._name} {number}")
        loop = asyncio.get_running_loop()
        turn = 0
        while not self._stopping:
            turn += 1
            name = f"{self._name}-{number}-{turn}"
            words = " ".join(f"{rng.getrandbits(20):x}" for _ in range(rng.randint(8, 80)))
            question = Question(name, f"{name} {words}", rng.randint(*TOKENS))
            heard_s: list[float] = []
            self.asking[number] = name
            sdks = self._sdks[number]
            try:
                text = await WAYS[way](sdks, question, lambda heard=heard_s: heard.append(loop.time()))
            except ERRORS as error:
                self.ledger.noticed[f"{way}: {type(error).__name__}: {error}"[:160]] += 1
                self.ledger.broken.add(name)
                continue
            finally:
                del self.asking[number]
            self.ledger.answered[question] = (way, text)
            gaps = [later - earlier for earlier, later in pairwise(heard_s)]
            if gaps:
                self.ledger.gaps_s.append(max(gaps))

    async def stop(self) -> Ledger:
        """Lets what was asked be answered."""
        self._stopping = True
        await asyncio.gather(*self._clients)
        for sdks in set(self._sdks):
            await sdks.close()
        return self.ledger


async def altered(ledger: Ledger, url: str) -> list[str]:
    """Names of the questions whose answer is not what a replica says that nothing happened to."""
    sdks = Sdks(url)
    limit = asyncio.Semaphore(16)

    async def check(question: Question, way: str, text: str) -> str | None:
        async with limit:
            expected = await WAYS[way](sdks, question, lambda: None)
        return None if expected == text else f"{question.name} ({way})"

    found = await asyncio.gather(*(check(q, way, text) for q, (way, text) in ledger.answered.items()))
    await sdks.close()
    return [name for name in found if name is not None]
