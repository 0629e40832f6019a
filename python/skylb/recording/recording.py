"""A recording: a thread that takes from the `Recorder` what arrived, and writes it into files."""

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skylb import _core
from skylb.clock import monotonic_ns, unix_ns
from skylb.errors import ConfigError
from skylb.recording.files import MODE, Files
from skylb.recording.fleet import NAME, Balancer, is_unchanged, scenario, signed

log = logging.getLogger("skylb.recording")

TAKE_INTERVAL_S = 0.25
"""Time between two visits to the recorder's queue."""

NOTE_INTERVAL_S = 30.0
"""Time between two descriptions of the fleet."""

PART_AGE_S = 60.0
"""A description of the fleet is written in less time than that."""

DROPPED = "Requests that could not be recorded. Those behind the end of a recording are not counted."

STOP_TIMEOUT_S = 5.0
"""How long the last lines may take to be written and packed when the process ends."""

KNOWN_MAX = 1 << 20
"""Blocks of prompts that are remembered, so that later ones are seen to share them: some 50 MB."""


class Source(Protocol):
    """What is recorded: the engine behind the router."""

    def record_prompts(self, on: bool) -> None:
        """Requests keep the hashes of their prompts from now on, or no longer."""

    def state(self) -> bytes:
        """The engine's state, as JSON."""


def check(directory: Path | None) -> None:
    """Checks that a directory can be recorded to; makes nothing.

    Raises:
        ConfigError: it cannot.
    """
    if directory is None:
        return
    if directory.exists():
        fault = None if directory.is_dir() else "it is no directory"
        fault = fault or (None if os.access(directory, os.W_OK | os.X_OK) else "it cannot be written to")
    else:
        parent = next(parent for parent in directory.absolute().parents if parent.exists())
        fault = None if os.access(parent, os.W_OK | os.X_OK) else f"it cannot be made in {parent}"
    if fault is not None:
        raise ConfigError([f"record: {directory}: {fault}: expected a directory that SkyLB may write to"])


def _remove_parts(directory: Path) -> None:
    """Removes descriptions of the fleet that were not finished because their process was killed."""
    for part in directory.glob(f".{NAME}.*.part"):
        with suppress(OSError):  # removed by somebody else
            if unix_ns() - part.stat().st_mtime_ns > PART_AGE_S * 1e9:
                part.unlink()


class Recording:
    """Records to a directory until it is stopped, or until the directory takes nothing more.

    Args:
        directory: where the files go. It is made if it is missing.
        recorder: of the requests that end.
        source: of their prompts, and of the fleet's description.
        balancer: what the scenario says of this balancer.
        bytes_max: of all files of recordings in the directory.
        block_bytes: bytes of a block of a prompt.
    """

    def __init__(
        self,
        directory: Path,
        *,
        recorder: _core.Recorder,
        source: Source,
        balancer: Balancer,
        bytes_max: int,
        block_bytes: int,
    ) -> None:
        self._directory = directory
        self._recorder = recorder
        self._source = source
        self._balancer = balancer
        self._start_ns = monotonic_ns()
        self._bytes_max = bytes_max
        self._block_bytes = block_bytes
        self._files: Files | None = None
        self.active = False
        """Requests are being recorded."""
        self._name = secrets.token_hex(4)
        self._undescribed = False
        """The fleet could not be described; the log has it."""
        self._lost = 0
        self._forgotten = 0
        self._taken = 0
        self._state: bytes | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Makes the first file, before anything else starts.

        Raises:
            ConfigError: a file cannot be made.
        """
        self._files = self._open()

    def discard(self) -> None:
        """Removes the file again: nothing was started."""
        if self._files is not None:
            self._files.discard()

    def start(self) -> None:
        """Begins to record into what was opened. In the event loop."""
        if self._files is None:
            return
        self._start_ns = monotonic_ns()
        self._loop = asyncio.get_running_loop()
        self.active = True
        self._recorder.record_arrivals(True)
        self._source.record_prompts(True)
        self._thread = threading.Thread(
            target=self._run, args=(self._files,), name="skylb-record", daemon=True
        )
        self._thread.start()
        self._note()

    def _open(self) -> Files:
        head = {
            "skylb_recording": 1,
            "recording": self._name,
            "started": unix_ns() / 1e9,
            "region": self._balancer.region,
            "block_bytes": self._block_bytes,
            "version": _core.__version__,
        }
        stem = f"arrivals-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{self._name}"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            _remove_parts(self._directory)
            return Files(self._directory, stem, msgspec.json.encode(head) + b"\n", self._bytes_max)
        except OSError as error:
            text = f"record: {self._directory}: cannot be written to: {error.strerror}"
            raise ConfigError([text]) from error

    def end(self) -> None:
        """Takes nothing more. In the event loop, before `stop`."""
        if self._timer is not None:
            self._timer.cancel()
        if self.active:
            self._state = self._source.state()
            self._source.record_prompts(False)

    def stop(self) -> None:
        """Writes what waits and ends the thread; blocks for `STOP_TIMEOUT_S` at most. For an executor."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)
        else:  # the process has not come as far as its start
            self.discard()

    @property
    def dropped(self) -> int:
        """Requests that are missing: the thread did not keep up, or the directory took nothing."""
        return self._lost + self._recorder.arrivals_dropped

    def view(self) -> dict[str, object]:
        """For operators: where it goes, whether it still does, and what is missing."""
        return {"directory": str(self._directory), "active": self.active, "dropped": self.dropped}

    def families(self) -> Iterator[Metric]:
        """The metrics."""
        yield GaugeMetricFamily("skylb_record_active", "Requests are being recorded.", value=self.active)
        written = self._files.lines if self._files is not None else 0
        yield CounterMetricFamily("skylb_record_requests", "Requests recorded.", value=written)
        yield CounterMetricFamily("skylb_record_dropped", DROPPED, value=self.dropped)
        yield CounterMetricFamily(
            "skylb_record_forgotten",
            "Blocks and ends of prompts that a recording no longer recognises.",
            value=self._forgotten,
        )

    def _note(self) -> None:
        """Has the fleet described, now and then."""
        self._state = self._source.state()
        if self._loop is not None:
            self._timer = self._loop.call_later(NOTE_INTERVAL_S, self._note)

    # --------------------------------------------------------------------------- the thread

    def _run(self, files: Files) -> None:
        balancer = self._balancer
        ended = False
        try:
            writer = _core.ArrivalWriter(balancer.region, self._start_ns, balancer.block_tokens, KNOWN_MAX)
            while not ended:
                self._wake.wait(TAKE_INTERVAL_S)
                self._wake.clear()
                stopping = self._stopping  # read first: what ended before the stop is still taken
                self._take(files, writer)
                self._describe()
                ended = stopping
        except OSError as error:  # the directory takes nothing more
            log.warning(
                "recording to %s stops: %s; requests are served as before", self._directory, error.strerror
            )
        except Exception:  # requests are served whatever happens here
            log.exception("recording to %s stops: a fault; requests are served as before", self._directory)
        finally:
            self.active = False
            files.close()
            if not ended:
                self._lost += self._taken - files.lines
                self._fail()

    def _take(self, files: Files, writer: _core.ArrivalWriter) -> None:
        arrivals = self._recorder.take_arrivals()
        if len(arrivals):
            self._taken += len(arrivals)
            files.write(writer.lines(arrivals))
            self._forgotten = writer.forgotten

    def _keep(self, path: Path) -> None:
        """Somebody has changed the description, or made it: it stays as it is, which is said once."""
        if not self._undescribed:
            log.warning("%s was changed, or is not SkyLB's: it is kept, and no longer renewed", path)
        self._undescribed = True

    def _describe(self) -> None:
        """Renews the description of the fleet. A fault is logged once, and requests are still recorded."""
        state, self._state = self._state, None
        if state is None:
            return
        path = self._directory / NAME
        part = self._directory / f".{NAME}.{self._name}.part"  # others may record to this directory
        try:
            if path.exists() and not is_unchanged(path.read_text()):
                self._keep(path)
                return
            text = scenario(self._balancer, state, (monotonic_ns() - self._start_ns) / 1e9)
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
            with os.fdopen(fd, "w") as written:
                written.write(signed(text))
            part.rename(path)
        except Exception as error:  # requests are recorded without a description too
            if not self._undescribed:
                trace = None if isinstance(error, OSError) else error
                log.warning("%s is not renewed: %s; requests are still recorded", path, error, exc_info=trace)
            self._undescribed = True
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _fail(self) -> None:
        """Lets the loop stop what is kept for the recording."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._cease)

    def _cease(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._lost += self._recorder.arrivals_dropped + len(self._recorder.take_arrivals())
        self._recorder.record_arrivals(False)
        self._source.record_prompts(False)
