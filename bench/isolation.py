"""``make bench-isolation``: what a tenant learns from the time of its answers about another tenant's prompts.

    python -m bench.isolation [--pairs 1500] [--write]

A whole run renews the results; one with fewer pairs prints, unless ``--write`` is given.

``skylb serve`` stands in front of two mock replicas, whose prefill takes the time of a real one. The victim
sends a prompt. Then the prober sends two prompts of the same length, in random order: the victim's, and one
that nobody has sent. It measures the time to the first token of each. AUC is the probability that the fresh
prompt took longer (Mann-Whitney): 1 tells the two apart every time, 0.5 is a guess. The interval is that of
Hanley and McNeil (1982). The prober also reads the ``cached_tokens`` that the engine reports.
"""

import argparse
import asyncio
import hashlib
import re
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from random import Random
from statistics import median

from bench.processes import heed_stops
from bench.record import keep
from skylb._core import ResponseReader
from skylb.tools.text import milliseconds, table
from tests.support.processes import balancer, mocks
from tests.support.raw import chat, request

PAIRS = 1500
"""The interval of an AUC of 0.5 is then 0.04 wide."""

CONTROL_PAIRS = 200
"""Where the prober is to learn something: that shows with few."""

WARM_UP = 10
REPLICAS = ("--profile", "h100-8b", "--time-scale", "0.5")
PROMPT_BYTES = 8000
"""2,000 tokens: 29 ms of prefill and step, of which 4 ms are left where all is cached."""

VICTIM, PROBER = "victim", "prober"
SEED = 7

BLIND = (0.45, 0.55)
"""Where the AUC has to lie, with its interval, where tenants are isolated."""

SEES = 0.9
"""The least AUC where they are not: the probe can find something."""

CACHED = re.compile(rb'"cached_tokens":(\d+)')


@dataclass(frozen=True)
class Case:
    """Who probes whom, and whether tenants are isolated."""

    name: str
    isolates: bool
    prober: str
    pairs: int
    blind: bool
    """The prober is to learn nothing."""


@dataclass(frozen=True)
class Probe:
    """One answer as the prober sees it."""

    ttft_s: float
    cached_tokens: int


class Client:
    """One keep-alive connection of a tenant."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader = reader
        self._writer = writer
        self._lines = [f"Authorization: Bearer {key}"]

    async def ask(self, prompt: str) -> Probe:
        """Sends a prompt, and takes the time to the first bytes of the stream.

        Raises:
            RuntimeError: the answer is no 200.
        """
        options = {"stream_options": {"include_usage": True}}
        data = request({**chat(prompt, max_tokens=1, stream=True), **options}, headers=self._lines)
        start = time.perf_counter()
        self._writer.write(data)
        framing, body, ttft_s = ResponseReader(), b"", 0.0
        while not framing.done:
            got = await self._reader.read(65536)
            if not got:
                raise RuntimeError("the connection ended within an answer")
            ttft_s = ttft_s or time.perf_counter() - start
            body += framing.feed(got)
        if framing.status != 200:
            raise RuntimeError(f"status {framing.status}: {body!r}")
        found = CACHED.search(body)
        return Probe(ttft_s, int(found[1]) if found else 0)

    def close(self) -> None:
        """Ends the connection."""
        self._writer.close()


def auc(low: Sequence[float], high: Sequence[float]) -> float:
    """The probability that one of ``high`` is greater than one of ``low``; a tie counts half."""
    ordered = sorted(low)
    wins = sum(bisect_left(ordered, value) + bisect_right(ordered, value) for value in high)
    return wins / (2 * len(low) * len(high))


def interval(area: float, low_len: int, high_len: int) -> tuple[float, float]:
    """95 % of an AUC, by the standard error of Hanley and McNeil (Radiology 143, 1982, equation 1)."""
    one, two = area / (2 - area), 2 * area * area / (1 + area)
    spread = (high_len - 1) * (one - area * area) + (low_len - 1) * (two - area * area)
    error = sqrt((area * (1 - area) + spread) / (low_len * high_len))
    return area - 1.96 * error, area + 1.96 * error


def prompts(draw: Random) -> tuple[str, str]:
    """Two prompts of one length that share no prefix."""
    texts = (draw.randbytes(PROMPT_BYTES // 2).hex() for _ in range(2))
    one, other = texts
    return one, other


async def probe(port: int, case: Case, draw: Random) -> tuple[list[Probe], list[Probe]]:
    """The answers to prompts of the victim, and to fresh ones."""
    victim = Client(*await asyncio.open_connection("127.0.0.1", port), VICTIM)
    prober = Client(*await asyncio.open_connection("127.0.0.1", port), case.prober)
    known: list[Probe] = []
    fresh: list[Probe] = []
    for number in range(case.pairs + WARM_UP):
        his, new = prompts(draw)
        await victim.ask(his)
        answers = {}
        for text in draw.sample([his, new], 2):
            answers[text] = await prober.ask(text)
        if number >= WARM_UP:
            known.append(answers[his])
            fresh.append(answers[new])
    victim.close()
    prober.close()
    return known, fresh


def measured(case: Case) -> tuple[list[Probe], list[Probe]]:
    """Runs one case with processes of its own."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys = [f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in (VICTIM, PROBER)]
        tenants = directory / "tenants"
        tenants.write_text("\n".join(keys))
        tenants.chmod(0o600)
        arguments = ["--tenant-key-file", str(tenants), "--seed", str(SEED)]
        arguments += ["--isolate-tenants"] if case.isolates else []
        urls = stack.enter_context(mocks(2, *REPLICAS))
        front = stack.enter_context(balancer(*urls, arguments=arguments))
        return asyncio.run(probe(front.port, case, Random(SEED)))


def row(case: Case, known: Sequence[Probe], fresh: Sequence[Probe]) -> tuple[list[str], bool]:
    """A line of the table, and whether the case came out as it should."""
    times = [[answer.ttft_s for answer in answers] for answers in (known, fresh)]
    area = auc(*times)
    least, most = interval(area, len(known), len(fresh))
    hits = sum(answer.cached_tokens > 0 for answer in known)
    if case.blind:
        fits = BLIND[0] <= least and most <= BLIND[1] and hits == 0
    else:
        fits = area >= SEES and hits == len(known)
    line = [
        case.name,
        str(case.pairs),
        milliseconds(median(times[0])),
        milliseconds(median(times[1])),
        f"{area:.3f}",
        f"{max(0.0, least):.3f} to {min(1.0, most):.3f}",
        f"{hits} of {len(known)}",
        "yes" if fits else "NO",
    ]
    return line, fits


def main() -> None:
    """Runs all cases, prints the table, and keeps it.

    Raises:
        SystemExit: 1, a case did not come out as it should.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of probes where all is isolated")
    parser.add_argument("--write", action="store_true", help="keep the results of a smaller run too")
    arguments = parser.parse_args()
    control = min(CONTROL_PAIRS, arguments.pairs)
    cases = [
        Case("off, another tenant", False, PROBER, control, blind=False),
        Case("on, another tenant", True, PROBER, arguments.pairs, blind=True),
        Case("on, the same tenant", True, VICTIM, control, blind=False),
    ]
    heed_stops()
    rows, fit = [], True
    for case in cases:
        line, fits = row(case, *measured(case))
        rows.append(line)
        fit = fit and fits
    columns = [
        "--isolate-tenants, prober",
        "pairs",
        "TTFT ms, victim's",
        "TTFT ms, fresh",
        "AUC",
        "95 %",
        "probes with cached tokens",
        "as it should be",
    ]
    lines = table(columns, rows)
    print("\n".join(lines))
    if arguments.pairs >= PAIRS or arguments.write:
        keep("bench-isolation", lines)
    raise SystemExit(0 if fit else 1)


if __name__ == "__main__":
    main()
