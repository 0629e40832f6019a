"""``skylb load`` for one measurement: its report, and percentiles of all requests that began.

    python -m bench.peers.load SETTINGS.json

The percentiles of the report are of answers. Here a request that failed or did not end is infinitely late, so
that a program which refuses or hangs does not look fast.
"""

import asyncio
import math
import sys
from pathlib import Path

import msgspec
import uvloop

from skylb.descriptors import raise_limit
from skylb.tools.load import LoadSettings, Report, prepare
from skylb.tools.load.stats import Histogram, Tally

QUANTILES = {"p50": 0.5, "p90": 0.9}


class Whole(msgspec.Struct, frozen=True):
    """Requests that began in the measured time.

    Attributes:
        begun, answered: how many.
        ttft_s, e2e_s: percentiles of all that began; ``None``: that request has no first token, or no end.
    """

    begun: int
    answered: int
    ttft_s: dict[str, float | None]
    e2e_s: dict[str, float | None]


class Found(msgspec.Struct, frozen=True):
    """What a measurement needs of a load."""

    report: Report
    total: Whole
    regions: dict[str, Whole]


def whole(tally: Tally) -> Whole:
    """The figures of one tally."""
    begun = tally.begun - tally.warmup
    return Whole(begun, tally.e2e.count, quantiles(tally.ttft, begun), quantiles(tally.e2e, begun))


def quantiles(times: Histogram, begun: int) -> dict[str, float | None]:
    """Percentiles of ``begun`` requests of which only some have a time; the others are later than any."""
    found: dict[str, float | None] = {}
    for name, q in QUANTILES.items():
        rank = max(1, math.ceil(q * begun))
        # Half a rank less: no rounding of the quotient reaches the next one.
        found[name] = times.quantile((rank - 0.5) / times.count) if rank <= times.count else None
    return found


async def run(settings: LoadSettings) -> Found:
    """Runs a load to its end."""
    load = await prepare(settings)
    report = await load.run()
    return Found(report, whole(load.total()), {name: whole(load.tally(name)) for name in report.regions})


def main() -> None:
    """Reads settings, runs, and writes what was found where the settings want the report."""
    settings = LoadSettings.model_validate(msgspec.json.decode(Path(sys.argv[1]).read_bytes()))
    if settings.json_file is None:
        raise SystemExit("json_file is missing")
    raise_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run(settings))
    settings.json_file.write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
