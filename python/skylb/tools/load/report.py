"""The report of a load: its JSON schema (these structs), and the same for people.

Seconds are real seconds, also where ``time_scale`` compressed thinking and arrivals. Latencies are
those of requests that *began* in the measured time (after the warm-up), rates count what *ended* in it.
"""

from pathlib import Path

import msgspec

from skylb.tools.load.stats import Histogram, Tally
from skylb.tools.text import milliseconds, table

SCHEMA = 1


class Quantiles(msgspec.Struct, frozen=True):
    """Durations in seconds, quantiles to 0.5 %; all ``None`` when there were none."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


class Section(msgspec.Struct, frozen=True):
    """One region's figures, or all regions' together.

    Attributes:
        begun: requests begun, those of the warm-up included.
        warmup: of them, begun in the warm-up: counted, not timed.
        ok: answered completely.
        failed: ended otherwise; ``errors`` says how.
        unfinished: cut off by the end of the run, or by Ctrl-C.
        errors: failed requests by kind (`skylb.tools.load.client` lists them).
        error_samples: one message of each kind.
        stale_connections: requests sent again because their kept connection had been closed.
        usage_missing: answers that did not tell their usage.
        prompt_mismatches: answers whose ``prompt_tokens`` were not the workload's ``in``.
        ttft_s: from the request to its first content event; streams only.
        itl_s: between content events of one answer.
        tpot_s: per output token after the first event: (last - first) / (tokens - 1).
        e2e_s: from the request to the end of its answer.
        prompt_tokens, cached_tokens, completion_tokens: of measured requests, as the engine reports.
        hit_rate: cached over prompt tokens, as the engine reports; ``None`` without usage.
        requests_per_s: complete answers.
        tokens_per_s: input + 2 x output tokens (the weight of the paper, section 5.1).
        output_tokens_per_s: output tokens alone.
    """

    begun: int
    warmup: int
    ok: int
    failed: int
    unfinished: int
    errors: dict[str, int]
    error_samples: dict[str, str]
    stale_connections: int
    usage_missing: int
    prompt_mismatches: int
    ttft_s: Quantiles
    itl_s: Quantiles
    tpot_s: Quantiles
    e2e_s: Quantiles
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    hit_rate: float | None
    requests_per_s: float
    tokens_per_s: float
    output_tokens_per_s: float


class Generator(msgspec.Struct, frozen=True):
    """How the generator itself fared: what it is late by is in every latency it reports.

    Attributes:
        cpu_share: of one core.
        loop_lag_s: how late the event loop ran what was due.
        send_lag_s: open loop: how late requests went out.
        late: loop lag above 10 ms at P99: this machine is busy, with the generator or with something else.
        saturated: more than 90 % of a core: the rates may be those of the generator, not of the target.
    """

    cpu_share: float
    loop_lag_s: Quantiles
    send_lag_s: Quantiles
    late: bool
    saturated: bool


class Report(msgspec.Struct, frozen=True):
    """All of it.

    Attributes:
        schema: version of this structure.
        settings: as given, defaults included.
        model: asked for.
        workload_requests: requests there were to send.
        workload_sent: share of them that was begun.
        lines_bad: broken lines left out of the workload file.
        first_fault: what was wrong with the first of them.
        wall_s: from the first request to the end.
        measured_s: the time that rates refer to.
        ended_by: ``exhausted`` (everything sent), ``duration`` or ``interrupted``.
    """

    schema: int
    settings: dict[str, object]
    model: str
    workload_requests: int
    workload_sent: float
    lines_bad: int
    first_fault: str | None
    wall_s: float
    measured_s: float
    ended_by: str
    total: Section
    regions: dict[str, Section]
    generator: Generator

    def write(self, path: Path) -> None:
        """Writes the report as JSON.

        Raises:
            OSError: the file cannot be written.
        """
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")


def quantiles(histogram: Histogram) -> Quantiles:
    """What the report keeps of a histogram."""
    return Quantiles(
        count=histogram.count,
        mean=histogram.mean_s,
        p50=histogram.quantile(0.5),
        p90=histogram.quantile(0.9),
        p99=histogram.quantile(0.99),
        max=histogram.max_s if histogram.count else None,
    )


def section(tally: Tally, measured_s: float) -> Section:
    """What the report keeps of a tally."""
    measured, window = tally.measured, tally.window
    per_s = 1 / measured_s if measured_s > 0 else 0.0
    return Section(
        begun=tally.begun,
        warmup=tally.warmup,
        ok=tally.ok,
        failed=tally.failed,
        unfinished=tally.unfinished,
        errors=dict(tally.errors),
        error_samples=tally.samples,
        stale_connections=tally.stale,
        usage_missing=tally.usage_missing,
        prompt_mismatches=tally.prompt_mismatches,
        ttft_s=quantiles(tally.ttft),
        itl_s=quantiles(tally.itl),
        tpot_s=quantiles(tally.tpot),
        e2e_s=quantiles(tally.e2e),
        prompt_tokens=measured.prompt,
        cached_tokens=measured.cached,
        completion_tokens=measured.completion,
        hit_rate=measured.cached / measured.prompt if measured.prompt else None,
        requests_per_s=tally.window_ok * per_s,
        tokens_per_s=(window.prompt + 2 * window.completion) * per_s,
        output_tokens_per_s=window.completion * per_s,
    )


def render(report: Report) -> str:
    """The report as text."""
    total = report.total
    rows = list(report.regions.items()) if len(report.regions) > 1 else []
    rows.append(("total", total))
    lines = [
        _summary(report),
        "",
        *table(_COUNT_COLUMNS, [_counts(name, row) for name, row in rows]),
        "",
        *table(_TIME_COLUMNS, [line for name, row in rows for line in _times(name, row)], left=2),
    ]
    lines += [
        f"error {kind}: {count} (such as: {total.error_samples.get(kind, '')})"
        for kind, count in sorted(total.errors.items(), key=lambda item: -item[1])
    ]
    lines += _notes(report)
    return "\n".join(lines)


def _summary(report: Report) -> str:
    sent = f"{report.total.begun} of {report.workload_requests} requests in {report.wall_s:.1f} s"
    return f"model {report.model}: {sent} ({report.ended_by}), {report.measured_s:.1f} s measured"


_COUNT_COLUMNS = (
    "region", "ok", "failed", "unfinished", "requests/s", "tokens/s", "output tokens/s", "hit rate",
)  # fmt: skip
_TIME_COLUMNS = ("region", "ms", "P50", "P90", "P99", "mean", "max")


def _counts(name: str, row: Section) -> tuple[str, ...]:
    return (
        name,
        str(row.ok),
        str(row.failed),
        str(row.unfinished),
        f"{row.requests_per_s:.2f}",
        f"{row.tokens_per_s:.0f}",
        f"{row.output_tokens_per_s:.0f}",
        "-" if row.hit_rate is None else f"{row.hit_rate:.3f}",
    )


def _times(name: str, row: Section) -> list[tuple[str, ...]]:
    kinds = {"TTFT": row.ttft_s, "inter-token": row.itl_s, "per token": row.tpot_s, "end to end": row.e2e_s}
    return [
        (name, kind, *(milliseconds(value) for value in (q.p50, q.p90, q.p99, q.mean, q.max)))
        for kind, q in kinds.items()
        if q.count
    ]


def _notes(report: Report) -> list[str]:
    total, generator = report.total, report.generator
    notes = []
    if report.lines_bad:
        notes.append(f"{report.lines_bad} broken lines left out; {report.first_fault}")
    if total.prompt_mismatches:
        notes.append(f"{total.prompt_mismatches} answers counted other prompt tokens than the workload")
    if total.usage_missing:
        notes.append(f"{total.usage_missing} answers had no usage: tokens and hit rate leave them out")
    if total.stale_connections:
        notes.append(f"{total.stale_connections} requests found a kept connection closed and were sent again")
    lag_s = generator.loop_lag_s.p99 or 0.0
    text = f"generator: {generator.cpu_share:.0%} of a core, loop lag P99 {lag_s * 1e3:.1f} ms"
    text += "; LATE: latencies include this lag" if generator.late else ""
    notes.append(text + ("; SATURATED: rates may be the generator's own" if generator.saturated else ""))
    return notes
