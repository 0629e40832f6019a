"""The table on the screen and the files in bench/results."""

import json
from typing import Any

from bench.overhead.measure import Kind
from bench.record import RESULTS, keep

TARGETS = {
    "unary": "<= 1.4 x HAProxy, <= 0.35 x best Rust router",
    "loop": "no target: where batches spare HAProxy most of its kernel time",
    "stream": "<= 1.2 x HAProxy, below every Rust router",
    "large": "<= 350 us or 2.2 x HAProxy, below every Rust router",
}


def table(kind: Kind, figures: dict[str, dict[str, float]]) -> str:
    """One work's rows, with ratios to HAProxy and to the best Rust router."""
    floor = figures.get("haproxy", {}).get("median_us")
    routers = [f["median_us"] for name, f in figures.items() if name not in {"haproxy", "skylb"}]
    lines = [f"{kind.title}: CPU per {kind.per}, us   (target of skylb: {TARGETS[kind.name]})"]
    lines.append(f"  {'proxy':<14}{'median':>9}{'min':>9}{'max':>9}{'/ haproxy':>11}{'/ best router':>15}")
    for name, figure in figures.items():
        row = f"  {name:<14}{figure['median_us']:>9.1f}{figure['min_us']:>9.1f}{figure['max_us']:>9.1f}"
        row += f"{figure['median_us'] / floor:>11.2f}" if floor else f"{'-':>11}"
        row += f"{figure['median_us'] / min(routers):>15.2f}" if routers else f"{'-':>15}"
        lines.append(row)
    return "\n".join(lines)


def ttft_line(figures: dict[str, Any]) -> str:
    """Added TTFT in two lines: SkyLB, and HAProxy in the same rounds."""
    about = f"half of SkyLB's saturation, {figures['saturation_per_s']:.0f}/s"
    rate = figures["rate_per_s"]
    lines = [f"added TTFT at {rate:.0f} requests/s ({about}; target of skylb: p50 <= 1, p99 <= 5 ms)"]
    for name in ("skylb", "haproxy"):
        if f"{name}_added_p50_ms" in figures:
            p50, p99 = figures[f"{name}_added_p50_ms"], figures[f"{name}_added_p99_ms"]
            lines.append(f"  {name:<16}p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")
    return "\n".join(lines)


def probing_lines(narrowed: dict[str, float], whole: dict[str, float]) -> str:
    """Cost of probing in one line for each kind of engine."""
    kinds = (("that take names of metrics, as vLLM does", narrowed), ("whose 50 kB are read whole", whole))
    return "\n".join(
        f"probing 100 replicas {kind}: {figures['cores']:.3f} core at {figures['probes_per_s']:.0f} probes/s "
        "(target <= 0.05)"
        for kind, figures in kinds
    )


def store(result: dict[str, Any], texts: list[str]) -> None:
    """Keeps a whole run."""
    keep("bench-overhead", "\n\n".join(texts).splitlines())
    (RESULTS / "bench-overhead.json").write_text(json.dumps(result, indent=1) + "\n")
