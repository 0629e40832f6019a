"""How long the event loop waits while a state is written, and how long a start takes to read it.

    python -m bench.state

The tree is full (the default bound), of conversations that each end in text of their own. Each part of the
state is one call, between which the loop serves requests: the longest call is what a request may wait.
Figures are CPU time of the thread.
"""

import statistics
import time

from bench import record
from bench.engine import Bench, Bodies, Kind, engine, head
from skylb import _core
from skylb.config import EngineSettings
from skylb.settings.handover import HandoverSettings

PROMPT = Kind("8 kB", 8_000, 0.0, 0)
ROUND = 500


def fill(bench: Bench, bytes_max: int) -> None:
    """Serves prompts until the tree takes nineteen twentieths of its bound."""
    bodies, sent = Bodies(PROMPT, 7), head(PROMPT.body_bytes)
    while bench.engine.tree_bytes < bytes_max * 19 // 20:
        bench.serve([bodies.make() for _ in range(ROUND)], sent)


def written(made: _core.Engine, bytes_max: int) -> tuple[bytes, list[float]]:
    """A state, and the milliseconds of each call."""
    writer = _core.StateWriter(b"s" * 32, None, 0, bytes_max)
    parts: list[bytes] = []
    took_ms: list[float] = []
    while True:
        begin_ns = time.thread_time_ns()
        part = made.export_state(writer, 3_000_000_000)
        took_ms.append((time.thread_time_ns() - begin_ns) / 1e6)
        if part is None:
            return b"".join(parts), took_ms
        parts.append(part)


def main() -> None:
    """Prints and keeps the table."""
    tree_max, state_max = EngineSettings().tree_bytes_max, HandoverSettings().state_bytes_max
    made = engine("predictive", tree_max)
    fill(Bench(made), tree_max)
    state, took_ms = written(made, state_max)
    cold = engine("predictive", tree_max)
    begin_ns = time.thread_time_ns()
    found = cold.import_state(state, 0, 3_000_000_000)
    read_s = (time.thread_time_ns() - begin_ns) / 1e9
    ranked = sorted(took_ms)
    text = [
        "| | |",
        "|---|---|",
        f"| tree | {made.tree_bytes >> 20} MiB of {tree_max >> 20} |",
        f"| state | {len(state) >> 20} MiB of {state_max >> 20}, {found['paths']} prefixes |",
        f"| calls | {len(took_ms)}, {sum(took_ms):.0f} ms together |",
        f"| one call, median | {statistics.median(ranked):.2f} ms |",
        f"| one call, longest | {ranked[-1]:.2f} ms |",
        f"| to read the state, before the start is ready | {read_s:.2f} s |",
    ]
    print("\n".join(text))
    record.keep("bench-state", text)


if __name__ == "__main__":
    main()
