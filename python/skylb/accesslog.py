"""Logs that never stall the loop: bounded queues, and a thread that writes them out.

The access log's lines wait in the `Recorder`, diagnostic messages in a `LineHandler`. A `LogWriter`
takes both ten times a second. When its file or pipe takes nothing, the queues fill, and further lines are
dropped and counted. Only the writer's thread waits.
"""

import logging
import os
import select
import stat
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import msgspec

from skylb._core import Recorder
from skylb.clock import monotonic_ns

log = logging.getLogger("skylb.accesslog")

DRAIN_INTERVAL_S = 0.1
"""Time between two visits to the queues: at 10,000 requests/s, 1000 lines or half a megabyte."""

STOP_TIMEOUT_S = 2.0
"""How long the last lines may take to be written when the process ends."""

DIAGNOSTIC_BYTES_MAX = 1 << 20
"""Diagnostic messages that wait for the writer."""

STDERR_FD = 2

_POLL_MS = 50


class LineHandler(logging.Handler):
    """Formats messages into a bounded queue of lines; does no I/O.

    Args:
        bytes_max: bound on the lines that wait; beyond it messages are dropped and counted.
    """

    def __init__(self, bytes_max: int = DIAGNOSTIC_BYTES_MAX) -> None:
        super().__init__()
        self._bytes_max = bytes_max
        self._queue = bytearray()
        self._queue_lock = threading.Lock()
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Queues one message."""
        try:
            text = self.format(record)
        except (TypeError, ValueError) as error:
            # The arguments do not fit the message: a fault of the call, no reason to fail a request.
            text = f"unreadable log call at {record.pathname}:{record.lineno}: {error}"
        line = text.encode(errors="backslashreplace") + b"\n"
        with self._queue_lock:
            if len(self._queue) + len(line) > self._bytes_max:
                self.dropped += 1
            else:
                self._queue += line

    def take(self) -> bytes:
        """The waiting lines; empties the queue."""
        with self._queue_lock:
            lines = bytes(self._queue)
            self._queue.clear()
        return lines


def _stamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """``TS LEVEL logger: message``; a traceback follows, indented, so that no line looks like a message."""

    def format(self, record: logging.LogRecord) -> str:
        """One message, control characters escaped."""
        message = record.getMessage()
        if not message.isprintable():
            message = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        text = f"{_stamp(record)} {record.levelname} {record.name}: {message}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text.replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """One JSON object per message: ``ts type level logger message`` and, with a traceback, ``error``.

    A message's ``extra`` may give another ``type`` than ``log``, and more ``fields``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One message as a JSON object without line breaks."""
        fields: dict[str, object] = {
            "ts": _stamp(record),
            "type": getattr(record, "type", "log"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().encode(errors="backslashreplace").decode(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        fields |= getattr(record, "fields", {})
        return msgspec.json.encode(fields).decode()


Failure = tuple[type[BaseException], BaseException, TracebackType | None]


def json_line(
    message: object, level: int = logging.ERROR, *, kind: str = "log", error: Failure | None = None
) -> str:
    """A text as a message of the JSON log: what ended the process, or was said before the log was open."""
    record = logging.LogRecord("skylb", level, __file__, 0, "%s", (message,), error)
    record.type = kind
    return JsonFormatter().format(record)


class LogWriter:
    """The thread behind the queues.

    Args:
        sources: each gives its waiting lines, newline-terminated, and empties itself.
        destination: a file, opened for appending, or a descriptor, which stays open.
        interval_s: time between two visits to the sources.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        sources: Sequence[Callable[[], bytes]],
        destination: Path | int,
        *,
        interval_s: float = DRAIN_INTERVAL_S,
    ) -> None:
        self._sources = list(sources)
        self._path = destination if isinstance(destination, Path) else None
        self._fd = _open(destination) if isinstance(destination, Path) else destination
        self._interval_s = interval_s
        self._wake = threading.Event()
        self._stopping = False
        self._reopening = False
        self._deadline_ns = 0
        self._torn = False
        """The last line that was written is not whole."""
        self._thread = threading.Thread(target=self._run, name="skylb-log", daemon=True)
        self.dropped = 0
        """Lines lost because the destination failed, or took nothing until the end."""

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Writes what waits and ends the thread.

        Blocks for ``timeout_s`` at most; lines that the destination has not taken by then are
        dropped and counted. For the end of the process, or an executor.
        """
        self._deadline_ns = monotonic_ns() + int(timeout_s * 1e9)
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s + 4 * _POLL_MS / 1000)
        if self._path is not None and not self._thread.is_alive():
            os.close(self._fd)

    def reopen(self) -> None:
        """Opens the file anew (it may have been rotated away) before the next lines are written."""
        self._reopening = True
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            stopping = self._stopping  # read first: what was queued before the stop is still taken
            if self._reopening:
                self._reopening = False
                self._reopen()
            for take in self._sources:
                lines = take()
                if lines:
                    self._write(lines)
            if stopping:
                return

    def _reopen(self) -> None:
        if self._path is None:
            return
        try:
            fd = _open(self._path)
        except OSError as error:
            log.warning(
                "log file %s: cannot be opened again, the old one stays in use: %s", self._path, error
            )
            return
        old, self._fd = self._fd, fd
        os.close(old)

    def _write(self, lines: bytes) -> None:
        if self._torn:
            lines, self._torn = b"\n" + lines, False
        may_stall = not stat.S_ISREG(os.fstat(self._fd).st_mode)
        at = 0
        while at < len(lines):
            if may_stall and not self._await_room():
                break
            end = _piece_end(lines, at) if may_stall else len(lines)
            try:
                at += os.write(self._fd, lines[at:end])
            except OSError:
                break  # disk full, or nobody reads the pipe any more: counted below
        self.dropped += lines.count(b"\n", at)
        if at and at < len(lines) and lines[at - 1 : at] != b"\n":
            self._take_back(at - 1 - lines.rfind(b"\n", 0, at))

    def _take_back(self, count: int) -> None:
        """Takes off the beginning of a line whose end a full disk did not take."""
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - count)
        except OSError:
            self._torn = True  # nothing that can be shortened

    def _await_room(self) -> bool:
        """Waits until a piece can be written without blocking; ``False``: not before the end."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while not poll.poll(_POLL_MS):
            if self._stopping and monotonic_ns() > self._deadline_ns:
                return False
        return True


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _piece_end(lines: bytes, start: int) -> int:
    """End of the next piece: whole lines of `PIPE_BUF` bytes together.

    A pipe that polls writable takes that much at once and undivided (POSIX, ``write``), so that lines
    of the process's other writers do not get in between.
    """
    limit = start + select.PIPE_BUF
    if limit >= len(lines):
        return len(lines)
    newline = lines.rfind(b"\n", start, limit)
    return limit if newline < 0 else newline + 1


class Logs:
    """The logs of one process: diagnostics on stderr, the access log where the settings say.

    Args:
        recorder: holds the access log's lines.
        access_log: ``stderr``, ``off``, or the path of a file.
        log_format: ``text``, ``logfmt`` or ``json``; messages are alike in the first two.
        level: least severe level of our own loggers; libraries log from ``warning`` on.

    Raises:
        OSError: the access log's file cannot be opened.
    """

    def __init__(self, recorder: Recorder, *, access_log: str, log_format: str, level: str) -> None:
        self._recorder = recorder
        self._handler = LineHandler()
        self._handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
        stderr_sources = [self._handler.take]
        self._writers = []
        if access_log == "stderr":
            stderr_sources.append(recorder.take_log)
        elif access_log != "off":
            self._writers.append(LogWriter([recorder.take_log], Path(access_log)))
        self._writers.append(LogWriter(stderr_sources, STDERR_FD))
        self.set_level(level)

    def start(self) -> None:
        """Takes over the root logger and starts writing."""
        root = logging.getLogger()
        root.setLevel(logging.WARNING)
        root.addHandler(self._handler)
        for writer in self._writers:
            writer.start()

    def stop(self) -> None:
        """Writes what waits and lets go of the root logger; blocks for `STOP_TIMEOUT_S` per log at most."""
        logging.getLogger().removeHandler(self._handler)
        for writer in self._writers:
            writer.stop()

    def set_level(self, level: str) -> None:
        """Changes the least severe level of our own loggers.

        Raises:
            ValueError: there is no such level.
        """
        logging.getLogger("skylb").setLevel(level.upper())

    def set_policy(self, policy: str) -> None:
        """Changes the policy that later lines of the access log name."""
        self._recorder.set_policy(policy)

    def reopen(self) -> None:
        """Opens files anew, after they were rotated."""
        for writer in self._writers:
            writer.reopen()

    @property
    def dropped(self) -> int:
        """Lines lost in any of the logs."""
        lost_by_writers = sum(writer.dropped for writer in self._writers)
        return self._recorder.log_dropped + self._handler.dropped + lost_by_writers
