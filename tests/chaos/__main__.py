"""``make chaos``: what clients notice while replicas and balancers die, stop, are cut off or replaced.

Each scene has its own balancers and mock replicas, a process each, and clients of both SDKs without retries.
Faults follow each other for the scene's time. Afterwards every answer is compared with that of a replica to
which nothing happened. The table says what the clients were told; a scene that keeps its promise has zeros.
Only a killed worker takes its own streams: there, those notice whose connections were to it, all of them, and
no others.

    python -m tests.chaos [--scene-s 30] [SCENE ...]
"""

import argparse
import asyncio
import statistics

from bench.record import keep
from tests.chaos.clients import Ledger, altered
from tests.chaos.fleet import reference
from tests.chaos.scenes import SCENES, Scene

SCENE_S = 30.0
HEAD = (
    "| scene | faults | answered | noticed | altered | longest gap of a stream, s: P99, most |\n"
    "|---|---|---|---|---|---|"
)


def percentile(values: list[float], percent: int) -> float:
    """Of some values; 0 of none."""
    if len(values) < 2:
        return max(values, default=0.0)
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def played(scene: Scene, scene_s: float, right: str) -> tuple[int, Ledger, list[str]]:
    """How many faults there were, what the clients got, and which answers are wrong."""
    faults, ledger = await scene(scene_s)
    return faults, ledger, await altered(ledger, right)


def main() -> None:
    """Runs all scenes, or those that are named; status 1 where a client noticed what it must not."""
    parser = argparse.ArgumentParser(prog="tests.chaos")
    parser.add_argument("--scene-s", type=float, default=SCENE_S)
    parser.add_argument("scene", nargs="*", metavar="SCENE", choices=[*SCENES, []], default=[])
    arguments = parser.parse_args()
    lines, good = [HEAD], True
    print(HEAD, flush=True)
    with reference() as right:
        for name in arguments.scene or SCENES:
            faults, ledger, wrong = asyncio.run(played(SCENES[name], arguments.scene_s, right))
            noticed = sum(ledger.noticed.values())
            others = ledger.broken ^ ledger.cut
            gap = f"{percentile(ledger.gaps_s, 99):.2f}, {max(ledger.gaps_s, default=0.0):.2f}"
            told = f"{noticed}: those at the killed workers, {len(others)} others" if ledger.cut else noticed
            lines.append(f"| {name} | {faults} | {len(ledger.answered)} | {told} | {len(wrong)} | {gap} |")
            print(lines[-1], flush=True)
            for what, count in ledger.noticed.most_common(8) if others else ():
                print(f"    {count} x {what}")
            for what in wrong[:5]:
                print(f"    altered: {what}")
            good = good and not others and not wrong and bool(faults)
    if not arguments.scene and arguments.scene_s >= SCENE_S:
        keep("chaos", lines)
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
