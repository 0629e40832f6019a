"""``make bench-continuing``: what clients see of streams whose region dies under them, or is evacuated.

Two regions of mock replicas. All clients ask in one of them. There, in turn, nothing happens, all replicas
are killed (SIGKILL), and the region is evacuated: first without running streams, then with them. Each answer
is the numbers of its tokens, so that one that is there twice, or missing, shows.

    python -m bench.continuing [--streams 200] [--tokens 400]
"""

import argparse
import asyncio
import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import aiohttp

from bench.record import keep
from skylb.tools.mock.profiles import PROFILES
from tests.support.processes import Child, get, sample_sum, start_mocks
from tests.support.regions import Region, regions

REPLICAS = 4
PROMPT_WORDS = 120
FAULT_AT = 0.4
"""When the fault comes: after this part of the first stream's tokens."""

MOCK = ("--number-tokens", "--profile", "l4-8b", "--time-scale", "1", "--kv-tokens", "100000")
KEPT_STREAMS = 200
CASES = ("nothing", "its replicas are killed", "it is evacuated", "it is evacuated within 1 s")
TIMEOUT = aiohttp.ClientTimeout(total=600)

HEAD = (
    "| what happens | streams | client errors | tokens twice or missing | went on elsewhere "
    "| worst gap of a stream, median, s | P99, s | max, s | of that to compute what is missing, s |"
    "\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass
class Stream:
    """One answer, as its client sees it."""

    text: str = ""
    error: str | None = None
    gaps_s: list[float] = field(default_factory=list)
    ended: bool = False
    far: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the fault may come."""


async def ask(session: aiohttp.ClientSession, url: str, number: int, tokens: int, stream: Stream) -> None:
    """Reads one stream to its end."""
    words = " ".join(f"word{number}-{index}" for index in range(PROMPT_WORDS))
    body = {
        "model": "mock",
        "messages": [{"role": "user", "content": words}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }
    last_s: float | None = None
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
            if answer.status != 200:
                stream.error = f"status {answer.status}"
                return
            async for line in answer.content:
                if not line.startswith(b"data: "):
                    continue
                now_s = time.monotonic()
                if last_s is not None:
                    stream.gaps_s.append(now_s - last_s)
                last_s = now_s
                if len(stream.gaps_s) >= FAULT_AT * tokens:
                    stream.far.set()
                if line == b"data: [DONE]\n":
                    stream.ended = True
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    stream.error = event["error"]["code"]
                    return
                for choice in event["choices"]:
                    stream.text += choice["delta"].get("content") or ""
    except (aiohttp.ClientError, TimeoutError) as error:
        stream.error = type(error).__name__


async def run(
    region: Region, streams_len: int, tokens: int, fault: Callable[[], None] | None
) -> list[Stream]:
    """All streams at once; the fault comes while they run."""
    streams = [Stream() for _ in range(streams_len)]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:
        asked = [
            asyncio.create_task(ask(session, region.front.url, number, tokens, stream))
            for number, stream in enumerate(streams)
        ]
        if fault is not None:
            waits = [asyncio.create_task(stream.far.wait()) for stream in streams]
            _, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for other in others:
                other.cancel()
            await asyncio.to_thread(fault)
        await asyncio.gather(*asked)
    return streams


def computed_tokens(urls: list[str]) -> float:
    """Prompt tokens that replicas have computed so far, without those that were cached."""
    pages = [get(f"{url}/metrics").decode() for url in urls]
    queries = sum(sample_sum(page, "vllm:prefix_cache_queries_total") for page in pages)
    return queries - sum(sample_sum(page, "vllm:prefix_cache_hits_total") for page in pages)


def prefill_s(tokens: float) -> float:
    """How long the replicas of a region take to compute so many prompt tokens, in steps as full as may be."""
    profile = PROFILES["l4-8b"]
    each = tokens / REPLICAS
    steps = math.ceil(each / profile.max_num_batched_tokens)
    return (each * profile.prefill_token_us + steps * profile.step_base_us) / 1e6


def row(name: str, streams: list[Stream], tokens: int, continued: float, missing: float) -> str:
    """A row of the table."""
    whole = "".join(f"{index:04}" for index in range(tokens))
    errors = [stream for stream in streams if stream.error is not None or not stream.ended]
    wrong = [stream for stream in streams if stream not in errors and stream.text != whole]
    wrong += [stream for stream in errors if not whole.startswith(stream.text)]
    worst = sorted(max(stream.gaps_s, default=0.0) for stream in streams)
    p99 = worst[min(len(worst) - 1, int(len(worst) * 0.99))]
    cells = (
        name,
        len(streams),
        len(errors),
        len(wrong),
        int(continued),
        f"{worst[len(worst) // 2]:.2f}",
        f"{p99:.2f}",
        f"{worst[-1]:.2f}",
        f"{prefill_s(missing):.2f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def case(name: str, streams_len: int, tokens: int) -> str:
    """One row, with processes of its own."""
    with ExitStack() as stack:
        engines: dict[str, list[str]] = {}
        children: dict[str, Child] = {}
        for region in ("us", "eu"):
            children[region], engines[region] = start_mocks(REPLICAS, *MOCK)
            stack.callback(children[region].stop)
        found = stack.enter_context(regions("us", "eu", engines=engines, arguments=["--continue-streams"]))
        us = found["us"]
        faults: dict[str, Callable[[], None] | None] = {
            "nothing": None,
            "its replicas are killed": children["us"].kill,
            "it is evacuated": lambda: us.verb("/regions/us/evacuate"),
            "it is evacuated within 1 s": lambda: us.verb("/regions/us/evacuate?within=1"),
        }
        before = 0.0

        def count_and(fault: Callable[[], None]) -> None:
            nonlocal before
            before = computed_tokens(engines["eu"])
            fault()

        fault = faults[name]
        streams = asyncio.run(run(us, streams_len, tokens, fault and partial(count_and, fault)))
        missing = computed_tokens(engines["eu"]) - before if fault else 0.0
        return row(name, streams, tokens, us.front.metric("skylb_streams_continued_total"), missing)


def main() -> None:
    """Runs all cases, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=KEPT_STREAMS)
    parser.add_argument("--tokens", type=int, default=400)
    options = parser.parse_args()
    text = [
        (
            f"Two regions of {REPLICAS} mock replicas each (l4-8b, real time); {options.streams} streams of "
            f"{options.tokens} tokens at us, with continuing on.\n"
        ),
        HEAD,
    ]
    print("\n".join(text))
    for name in CASES:
        text.append(case(name, options.streams, options.tokens))
        print(text[-1], flush=True)
    if options.streams == KEPT_STREAMS:
        keep("bench-continuing", text)


if __name__ == "__main__":
    main()
