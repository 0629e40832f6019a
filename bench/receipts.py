"""What receipts cost: CPU time of submit, first byte and completion, with and without them.

    python -m bench.receipts [--rounds 15] [--policy predictive]

Two engines serve the same bodies in turn, in short rounds side by side. The figures are medians of rounds
and of each pair's difference. Its share is that of what a balancer takes for a request in all
(``bench/results/bench-overhead.md``: 67 us for 2 kB).
"""

import argparse
import gc
import random
import statistics
import time

from bench import choice
from bench.engine import MODEL, Bodies, Kind, head
from skylb import _core
from skylb.config import EngineSettings

REQUEST_US = 67.1
"""CPU time of ``skylb serve`` for a request of 2 kB: bench/results/bench-overhead.md."""

REQUESTS = 2_000
"""Per round."""

KEPT = 10_000
TARGET_RATIO = 0.02


def engine(policy: str, replicas: int, receipts: int) -> _core.Engine:
    """Ready replicas that take whatever comes."""
    settings = EngineSettings(
        policy=policy, push="blind", in_flight_max=1_000_000
    )  # a name from the command line, validated here
    made = _core.Engine(settings.model_dump_json().encode(), b"bench-secret-bench-secret", 1)
    made.set_replicas([(replica, f"http://127.0.0.1:{8100 + replica}") for replica in range(replicas)], 1)
    for replica in range(replicas):
        made.set_models(replica, [(MODEL, 131_072)], False, 1)
        made.observe_failed(replica, _core.PROBE_UNREADABLE, 1)
    made.keep_receipts(receipts, 1)
    return made


class Served:
    """An engine and the number of its last request."""

    def __init__(self, made: _core.Engine) -> None:
        self._engine = made
        self._id = 0
        self._sent = head(2_000)

    def serve(self, bodies: list[bytes]) -> float:
        """Microseconds of CPU time per request."""
        made, now_ns = self._engine, 2_000_000_000
        begin_ns = time.thread_time_ns()
        for body in bodies:
            self._id += 1
            request, _ = choice.submit(made, self._id, self._sent, body, now_ns)
            relay = request.relay(True)
            made.first_byte(request, relay, now_ns)
            made.complete(request, _core.OUTCOME_OK, relay, now_ns)
        return (time.thread_time_ns() - begin_ns) / 1_000 / len(bodies)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="bench.receipts")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--policy", default="predictive")
    arguments = parser.parse_args()
    bodies = [Bodies(Kind(MODEL, 2_000, 0.0, REQUESTS), 4).make() for _ in range(500)]
    print(f"submit, first byte and completion of 2 kB, policy {arguments.policy}, {KEPT:,} receipts kept")
    print(f"  {'replicas':<10}{'off us':>9}{'on us':>9}{'more us':>9}{'of a request':>14}")
    gc.disable()
    for replicas in (4, 16, 1_000):
        off, on = (Served(engine(arguments.policy, replicas, kept)) for kept in (0, KEPT))
        chooser = random.Random(5)
        taken: list[tuple[float, float]] = []
        for number in range(arguments.rounds + 2):
            drawn = chooser.choices(bodies, k=REQUESTS)
            pair = (
                (off.serve(drawn), on.serve(drawn))
                if number % 2
                else (on.serve(drawn), off.serve(drawn))[::-1]
            )
            if number >= 2:
                taken.append(pair)
        more = statistics.median(after - before for before, after in taken)
        medians = [statistics.median(column) for column in zip(*taken, strict=True)]
        share = more / REQUEST_US
        print(f"  {replicas:<10}{medians[0]:>9.2f}{medians[1]:>9.2f}{more:>9.2f}{share:>13.1%}")
    print(f"  target: {TARGET_RATIO:.0%} of a request's {REQUEST_US} us with 4 replicas")


if __name__ == "__main__":
    main()
