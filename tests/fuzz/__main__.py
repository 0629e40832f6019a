"""``python -m tests.fuzz``: every target in Python over changed inputs, for a time of CPU each."""

import argparse
import hashlib
import logging
import random
import sys
import time
from pathlib import Path

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"
POOL_LEN_MAX = 4096
SLOW_S = 1.0
"""CPU that no input of this size may take."""


def known(target: Target) -> list[bytes]:
    """Its seeds, and the inputs that once made it fail."""
    stored = sorted((CORPUS / target.name).glob("*"))
    return [*target.seeds, *(path.read_bytes() for path in stored)]


def hunt(target: Target, cpu_s: float, seed: int) -> bool:
    """Runs one target; prints its figures, and whether it held."""
    draw = random.Random(seed)
    pool = list(known(target))
    began_s, runs, slowest_s = time.process_time(), 0, 0.0
    while time.process_time() - began_s < cpu_s:
        data = mutated(pool, draw)
        before_s = time.process_time()
        try:
            target.run(data)
        except Exception:
            path = CORPUS / target.name / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"{target.name}: FAILED, input kept as {path}", flush=True)
            raise
        took_s = time.process_time() - before_s
        slowest_s = max(slowest_s, took_s)
        runs += 1
        if len(pool) < POOL_LEN_MAX and draw.random() < 0.02:
            pool.append(data)  # changes of changes, always beside the first
    spent_s = time.process_time() - began_s
    print(f"{target.name:10} {runs:>9,} runs {spent_s:7.1f} s CPU, slowest {slowest_s:.3f} s", flush=True)
    return slowest_s < SLOW_S


def main() -> int:
    """The exit status: 1 where an input was slow."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cpu-s", type=float, default=60.0, help="CPU time of each target, in seconds")
    parser.add_argument("--seed", type=int, default=None, help="what changes are drawn from")
    parser.add_argument("--target", action="append", help="only this target; may be given several times")
    arguments = parser.parse_args()
    logging.disable()  # what is wrong with a file is logged for operators, here for every input
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}")
    chosen = [target for target in TARGETS if arguments.target is None or target.name in arguments.target]
    held = [hunt(target, arguments.cpu_s, seed) for target in chosen]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
