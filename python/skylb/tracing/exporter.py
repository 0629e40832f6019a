"""The thread that takes spans from the core and posts them. Only this thread waits for the collector."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from skylb._core import Recorder
from skylb.clock import monotonic_ns, unix_offset_ns
from skylb.tracing.collector import Answer, Collector

log = logging.getLogger("skylb.tracing")

EXPORT_INTERVAL_S = 0.5
"""Time between two visits to the queue: its 4 MiB hold a second of 3,000 requests/s."""

KEEP_S = 30.0
"""How long spans are sent again to a collector that does not take them. Then they are dropped, and those that
came meanwhile have their turn."""

PAUSE_S = 0.5
"""Before spans are sent again; twice as long each time."""
PAUSE_MAX_S = 5.0

STOP_TIMEOUT_S = 2.0
"""How long the last spans may take when the process ends."""

JUMP_NS = 1_000_000
"""The wall clock was set if it moved so far against the monotonic one: two readings differ by less."""

REASONS = ("queue_full", "unreachable", "refused")
"""Why spans are dropped."""


class SpanExporter:
    """Posts the spans of one process.

    Args:
        recorder: holds the spans.
        collector: takes them.
        interval_s: time between two visits to the queue.
        keep_s: how long the same spans are sent again.
        pause_s: before the first repetition.
        offset_ns: wall clock minus monotonic clock.
    """

    def __init__(
        self,
        recorder: Recorder,
        collector: Collector,
        *,
        interval_s: float = EXPORT_INTERVAL_S,
        keep_s: float = KEEP_S,
        pause_s: float = PAUSE_S,
        offset_ns: Callable[[], int] = unix_offset_ns,
    ) -> None:
        self.collector = collector
        self._recorder = recorder
        self._interval_s = interval_s
        self._keep_ns = int(keep_s * 1e9)
        self._pause_s = pause_s
        self._read_offset_ns = offset_ns
        self._offset_ns = offset_ns()
        self._wake = threading.Event()
        self._stopping = False
        self._deadline_ns = 0
        self._thread = threading.Thread(target=self._run, name="skylb-spans", daemon=True)
        self._lost_before: int | None = None
        """Spans that had been dropped when the collector stopped taking any; ``None`` while it takes them."""
        self._faulty = False
        """There was a fault of ours; the log has it."""
        self._dropped: Counter[str] = Counter()
        self.exported = 0
        """Spans that the collector has taken."""

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Posts what waits and ends the thread; blocks for ``timeout_s`` at most.

        For the end of the process, or an executor.
        """
        self._deadline_ns = monotonic_ns() + int(timeout_s * 1e9)
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def dropped(self) -> dict[str, int]:
        """Spans that were dropped, by reason."""
        return {reason: self._dropped[reason] for reason in REASONS} | {
            "queue_full": self._recorder.spans_dropped
        }

    def view(self) -> dict[str, object]:
        """For operators: the collector, whether it takes no spans, and how many were dropped."""
        failing = self._lost_before is not None
        return {"url": self.collector.url, "failing": failing, "dropped": self.dropped()}

    def families(self) -> Iterator[Metric]:
        """The metrics."""
        yield CounterMetricFamily(
            "skylb_spans_exported", "Spans that the collector has taken.", value=self.exported
        )
        dropped = CounterMetricFamily("skylb_spans_dropped", "Spans lost, by reason.", labels=("reason",))
        for reason, count in self.dropped().items():
            dropped.add_metric((reason,), count)
        yield dropped

    def _run(self) -> None:
        while True:
            if not self._stopping:
                self._wake.wait(self._interval_s)
            self._wake.clear()
            stopping = self._stopping  # read first: what was queued before the stop is still taken
            taken = self._recorder.take_spans(self._clock_ns())
            if taken is not None:
                head, spans, count = taken
                self._export_or_drop((head, spans), count)
            if stopping:
                self.collector.close()
                return

    def _clock_ns(self) -> int:
        offset_ns = self._read_offset_ns()
        if abs(offset_ns - self._offset_ns) > JUMP_NS:
            self._offset_ns = offset_ns
        return self._offset_ns

    def _export_or_drop(self, parts: tuple[bytes, bytes], count: int) -> None:
        """Exports; a fault of ours costs these spans, and not the thread. The log has the first one."""
        try:
            self._export(parts, count)
        except Exception:  # later spans are exported whatever is wrong with these
            self._dropped["unreachable"] += count
            self.collector.close()
            if not self._faulty:
                log.exception("spans for %s were dropped: a fault", self.collector.url)
            self._faulty = True

    def _export(self, parts: tuple[bytes, bytes], count: int) -> None:
        """Posts until the collector has the spans, does not want them, or has not taken them for too long."""
        until_ns, pause_s = monotonic_ns() + self._keep_ns, self._pause_s
        while True:
            answer = self.collector.post(parts, self._deadline_ns if self._stopping else until_ns)
            if not answer.fault:
                self._taken(answer, count)
                return
            self._failed(answer)
            now_ns = monotonic_ns()
            end_ns = self._deadline_ns if self._stopping else until_ns
            wait_s = max(pause_s, answer.after_s or 0.0)
            if not answer.again or now_ns + wait_s * 1e9 > end_ns:
                self._dropped["unreachable" if answer.again else "refused"] += count
                return
            # A stop ends the pause: there is time for one more try.
            self._wake.wait(wait_s)
            self._wake.clear()
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _taken(self, answer: Answer, count: int) -> None:
        refused = min(answer.rejected, count)
        self._dropped["refused"] += refused
        self.exported += count - refused
        if self._lost_before is not None:
            lost = sum(self.dropped().values()) - self._lost_before
            self._lost_before = None
            log.info("collector %s takes spans again; %d were lost", self.collector.url, lost)

    def _failed(self, answer: Answer) -> None:
        if self._lost_before is None:
            self._lost_before = sum(self.dropped().values())
            log.warning(
                "collector %s does not take spans: %s; they are dropped beyond otlp.queue_bytes_max",
                self.collector.url,
                answer.fault,
            )
